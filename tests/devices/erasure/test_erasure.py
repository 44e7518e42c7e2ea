"""Deleting a device with its data: the registry's half."""

from __future__ import annotations

import pytest

from tests.devices.running import Service
from tests.support.waiting import wait_until


@pytest.fixture
def job(service: Service) -> str:
    service.register("d1")
    answer = service.admin("DELETE", "/v1/devices/d1?data=true")
    assert answer.status_code == 202
    wait_until(lambda: service.internal("GET", "/internal/erasures").json["items"])
    return str(answer.json["id"])


def test_device_is_cut_off_and_its_id_taken_until_its_data_is_gone(service, job) -> None:
    [wanted] = service.internal("GET", "/internal/erasures").json["items"]

    assert (wanted["id"], wanted["device"], wanted["tenant"]) == (job, "d1", "default")
    shown = service.admin("GET", "/v1/devices/d1").json
    assert (shown["state"], shown["credentials"]) == ("retired", [])
    assert service.admin("POST", "/v1/devices", {"id": "d1"}).json["code"] == "device_exists"
    assert service.admin("GET", f"/v1/jobs/{job}").json["done"] == 1


def test_device_is_deleted_when_the_writer_is_done(service, job) -> None:
    service.internal("POST", f"/internal/erasures/{job}:done", {"quarantined": 3})
    wait_until(lambda: service.admin("GET", f"/v1/jobs/{job}").json["state"] == "done")

    over = service.admin("GET", f"/v1/jobs/{job}").json
    assert (over["done"], over["result"]) == (3, {"quarantined": 3})
    assert service.internal("GET", "/internal/erasures").json["items"] == []
    assert service.admin("GET", "/v1/devices/d1").status_code == 404
    service.register("d1")


def test_store_that_cannot_delete_fails_the_job(service, job) -> None:
    service.internal("POST", f"/internal/erasures/{job}:done", {"refusal": "cannot"})
    wait_until(lambda: service.admin("GET", f"/v1/jobs/{job}").json["state"] == "failed")

    assert service.admin("GET", f"/v1/jobs/{job}").json["error"] == "cannot"
    assert service.admin("GET", "/v1/devices/d1").json["state"] == "retired"


def test_unknown_device_starts_no_job(service) -> None:
    assert service.admin("DELETE", "/v1/devices/none?data=true").status_code == 404
    assert service.admin("GET", "/v1/jobs").json["items"] == []
