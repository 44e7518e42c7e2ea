"""ThingsBoard's provisioning, as its clients ask for it."""

from __future__ import annotations

import pytest


def ask(service, secret: str, key: str = "hall", **more):
    asked = {"deviceName": "pump-1", "provisionDeviceKey": key, "provisionDeviceSecret": secret} | more
    return service.nobody("POST", "/api/v1/provision", asked)


@pytest.fixture
def secret(service) -> str:
    terms = {"name": "hall", "ids": "pump-*", "type": "pump", "max_devices": 2}
    return str(service.admin("POST", "/v1/enrolments", terms).json["secret"])


def test_device_is_given_an_access_token_that_works(service, secret) -> None:
    answer = ask(service, secret)

    assert (answer.status_code, answer.json["status"], answer.json["credentialsType"]) == (
        200, "SUCCESS", "ACCESS_TOKEN"
    )  # fmt: skip
    assert service.nobody("GET", f"/api/v1/{answer.json['credentialsValue']}/attributes").status_code == 200
    assert service.admin("GET", "/v1/devices/pump-1").json["type"] == "pump"


def test_key_is_the_name_or_the_id_of_the_enrolment(service, secret) -> None:
    enrolment = service.admin("GET", "/v1/enrolments").json["items"][0]["id"]

    assert ask(service, secret, key=enrolment).json["status"] == "SUCCESS"
    unnamed = ask(service, secret, deviceName=None).json

    assert unnamed["credentialsValue"].startswith("pump-")


@pytest.mark.parametrize("wrong", [{"key": "hall-2"}, {"provisionDeviceSecret": "guessed"}])
def test_wrong_key_or_secret_is_not_found(service, secret, wrong) -> None:
    answer = ask(service, secret, **wrong)

    assert (answer.status_code, answer.json["status"]) == (401, "NOT_FOUND")
    assert answer.json["errorMsg"]
    assert service.admin("GET", "/v1/devices").json["items"] == []


@pytest.mark.parametrize(
    "odd",
    [
        {"deviceName": "valve-1"},  # not an id of this enrolment
        {"deviceName": "Pump 1"},
        {"deviceName": 7},
        {"credentialsType": "X509_CERTIFICATE", "hash": "MIIB"},
        {"token": "chosen-by-the-device"},
        {"provisionDeviceKey": None},
    ],
)
def test_what_cannot_be_provisioned_is_a_failure_in_words(service, secret, odd) -> None:
    answer = ask(service, secret, **odd)

    assert (answer.status_code // 100, answer.json["status"]) == (4, "FAILURE")
    assert answer.json["errorMsg"]


def test_id_that_is_taken_is_a_failure(service, secret) -> None:
    ask(service, secret)

    assert ask(service, secret).json == {
        "status": "FAILURE", "errorMsg": "device pump-1 exists already", "code": "device_exists"
    }  # fmt: skip


def test_guesses_have_to_wait(service, secret) -> None:
    told = [ask(service, f"guess {number}") for number in range(7)]

    assert told[-1].status_code == 429
    assert int(told[-1].headers["Retry-After"]) > 0
    assert ask(service, secret).status_code == 200
