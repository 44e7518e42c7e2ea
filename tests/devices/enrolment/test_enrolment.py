from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.enrolment.seal import Seal
from tests.devices.running import ADMIN, Caller, Service
from wire.enrolment import fits
from wire.errors import Unavailable
from wire.group_keys import derive_key

# The example of the Device Provisioning Service's documentation, "How to use symmetric key attestation".
KEY = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
REGISTRATION, DERIVED = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="


def open_way(service: Service, **more: object) -> str:
    answer = service.admin("POST", "/v1/enrolments", {"name": "hall"} | more)
    assert answer.status_code == 201, answer.json
    return str(answer.json["secret"])


def enrol(service: Service, secret: str, **body: object):
    return Caller(service.app, secret)("POST", "/v1/enrol", body)


@pytest.fixture
def service(config):
    started = Service(config.model_copy(update={"registry_key": "k" * 43}))
    yield started
    started.stop()


def test_derived_key_is_that_of_azure() -> None:
    assert derive_key(base64.b64decode(KEY), REGISTRATION) == DERIVED


@given(st.text("ab", min_size=1, max_size=6), st.text("ab", max_size=3), st.text("ab", max_size=3))
def test_pattern_fits_what_its_star_can_be(text: str, head: str, tail: str) -> None:
    made = any(head + text[i:j] + tail == text for i in range(len(text) + 1) for j in range(i, len(text) + 1))

    assert fits(f"{head}*{tail}", text) == made
    assert fits(text, text)


def test_token_registers_one_device_with_its_terms(service) -> None:
    secret = open_way(service, ids="pump-*", type="pump", tags={"site": "a"})

    made = enrol(service, secret, id="pump-1", hardware={"board": "r2"})

    assert made.status_code == 201
    shown = service.admin("GET", "/v1/devices/pump-1").json
    assert (shown["state"], shown["type"], shown["tags"]) == ("registered", "pump", {"site": "a"})
    assert shown["credentials"][0]["id"] == made.json["credential"]["id"]
    assert enrol(service, secret, id="pump-2").json["code"] == "enrolment_used_up"
    assert service.admin("GET", "/v1/enrolments").json["items"][0]["state"] == "used_up"


def test_secret_is_in_no_list_and_no_table(service) -> None:
    secret = open_way(service)
    key = service.admin("POST", "/v1/enrolments", {"name": "fleet", "kind": "group"}).json["secret"]

    listed = service.admin("GET", "/v1/enrolments").get_data(as_text=True)
    audited = service.admin("GET", "/v1/audit").get_data(as_text=True)
    with service.app.extensions["headwater.database"].read() as connection:
        rows = str(connection.exec_driver_sql("SELECT * FROM enrolments").all())

    assert secret not in listed + audited + rows
    assert key not in listed + audited + rows


def test_id_outside_the_pattern_is_refused(service) -> None:
    secret = open_way(service, ids="pump-*")

    assert enrol(service, secret, id="valve-1").json["code"] == "id_not_allowed"


def test_device_without_an_id_is_given_one(service) -> None:
    secret = open_way(service, ids="pump-*", max_devices=2)

    first, second = enrol(service, secret).json["id"], enrol(service, secret).json["id"]

    assert first != second
    assert first.startswith("pump-")
    assert service.admin("GET", f"/v1/devices/{first}").status_code == 200


def test_lost_answer_is_asked_for_again_with_the_nonce(service) -> None:
    secret, nonce = open_way(service), "0123456789abcdef"
    first = enrol(service, secret, id="d1", nonce=nonce).json["credential"]

    again = enrol(service, secret, id="d1", nonce=nonce)

    assert again.status_code == 201
    held = service.admin("GET", "/v1/devices/d1/credentials").json["items"]
    assert [item["id"] for item in held] == [again.json["credential"]["id"]] != [first["id"]]
    assert enrol(service, secret, id="d1", nonce=nonce[::-1]).status_code == 403
    assert enrol(service, secret, id="d2", nonce=nonce).status_code == 403


def test_taken_id_is_no_way_to_its_credential(service) -> None:
    service.register("d1")
    secret = open_way(service, max_devices=2)

    assert enrol(service, secret, id="d1").json["code"] == "device_exists"
    assert len(service.admin("GET", "/v1/devices/d1/credentials").json["items"]) == 1
    assert service.admin("GET", "/v1/enrolments").json["items"][0]["enrolled"] == 0


def test_revoked_enrolment_takes_nobody_and_leaves_its_devices(service) -> None:
    secret = open_way(service, max_devices=2)
    enrol(service, secret, id="d1")

    assert service.admin("DELETE", "/v1/enrolments/hall").status_code == 204

    assert enrol(service, secret, id="d2").status_code == 401
    assert service.admin("GET", "/v1/devices/d1").status_code == 200
    assert service.admin("DELETE", "/v1/enrolments/hall").json["code"] == "enrolment_not_found"


def test_wrong_secrets_have_to_wait_but_right_ones_do_not(service) -> None:
    secret = open_way(service)

    codes = [enrol(service, f"wrong-{n}").json["code"] for n in range(8)]

    assert codes[0] == "unauthorized"
    assert codes[-1] == "enrolment_back_off"
    assert enrol(service, secret, id="d1").status_code == 201


def test_derived_key_registers_its_own_device_only(service) -> None:
    open_way(service, kind="group", key=KEY, type="pump")

    assert enrol(service, f"d2.{DERIVED}").status_code == 401
    assert enrol(service, f"{REGISTRATION}.{DERIVED}", id="d2").json["code"] == "identity_mismatch"
    made = enrol(service, f"{REGISTRATION}.{DERIVED}")

    assert (made.status_code, made.json["credential"], made.json["type"]) == (201, None, "pump")
    assert enrol(service, f"{REGISTRATION}.{DERIVED}").json["code"] == "device_exists"


def test_unknown_device_is_admitted_by_the_hash_of_its_derived_key(service) -> None:
    import hashlib

    open_way(service, kind="group", key=KEY, max_devices=1)
    right, wrong = hashlib.sha256(DERIVED.encode()).hexdigest(), "0" * 64

    def admit(sha256: str, device_id: str = REGISTRATION):
        return service.internal("POST", "/internal/devices:admit", {"id": device_id, "sha256": sha256}).json

    assert admit(wrong) == {"admitted": False}
    assert admit(right, "d2") == {"admitted": False}
    assert admit(right) == {"admitted": True}
    found = service.internal("POST", "/internal/devices:lookup", {"ids": [REGISTRATION]}).json["devices"]
    assert found[0]["credentials"][0]["sha256"] == right


def test_another_installations_key_opens_nothing() -> None:
    sealed = Seal("a" * 43).close(b"content", "e1")

    assert Seal("a" * 43).open(sealed, "e1") == b"content"
    for seal, purpose in ((Seal("b" * 43), "e1"), (Seal("a" * 43), "e2"), (Seal(""), "e1")):
        with pytest.raises(Unavailable):
            seal.open(sealed, purpose)


def test_device_is_put_into_the_group_of_its_way_in(service) -> None:
    service.admin("POST", "/v1/groups", {"name": "pumps"})
    service.admin("POST", "/v1/groups", {"name": "found", "query": "type=pump"})
    secret = open_way(service, group="pumps")

    enrol(service, secret, id="d1")

    assert service.admin("GET", "/v1/groups/pumps").json["count"] == 1
    for name in ("found", "nobody"):
        refused = service.admin("POST", "/v1/enrolments", {"name": name, "group": name})
        assert (refused.status_code, refused.json["code"]) == (404, "group_not_found")


def test_suspended_tenant_takes_nobody_in(service) -> None:
    service.admin("POST", "/v1/tenants", {"id": "acme", "title": "Acme"})
    acme = Caller(service.app, f"{ADMIN}@acme")
    ways = [{"name": "t", "max_devices": 5}, {"name": "g", "kind": "group"}]
    token, key = (acme("POST", "/v1/enrolments", each).json["secret"] for each in ways)
    nonce = "n" * 16
    enrol(service, token, id="early-1", nonce=nonce)
    derived = derive_key(base64.b64decode(key), "late-2")

    service.admin("POST", "/v1/tenants/acme:suspend")
    late = [
        enrol(service, token, id="late-1"), enrol(service, token, nonce=nonce), enrol(service, f"late-2.{derived}")
    ]  # fmt: skip
    service.admin("POST", "/v1/tenants/acme:resume")

    assert [(each.status_code, each.json["code"]) for each in late] == [(403, "tenant_suspended")] * 3
    assert acme("GET", "/v1/devices/late-2").status_code == 404
    assert enrol(service, f"late-2.{derived}").status_code == 201
