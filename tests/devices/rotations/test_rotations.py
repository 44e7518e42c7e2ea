"""New secrets for many devices: both work until each has switched, then the old ones end."""

from __future__ import annotations

import csv
import io
import time

import pytest
from sqlalchemy import update

from devices.database.tables import CREDENTIALS
from tests.devices.running import Service
from tests.support.waiting import wait_until
from wire import clock


def rotate(service: Service, query: str = "tag.site=a", **more) -> str:
    answer = service.admin("POST", "/v1/rotations", {"query": query} | more)
    assert answer.status_code == 202, answer.json
    return str(answer.json["id"])


def job_of(service: Service, job_id: str):
    return service.admin("GET", f"/v1/jobs/{job_id}").json


def issued(service: Service, job_id: str, count: int) -> list[dict[str, str]]:
    wait_until(lambda: "until" in job_of(service, job_id)["result"], 10)
    rows = list(csv.DictReader(io.StringIO(service.admin("GET", f"/v1/jobs/{job_id}/result").text)))
    assert len(rows) == count
    return rows


def credentials(service: Service, device: str) -> list[str]:
    return [item["id"] for item in service.admin("GET", f"/v1/devices/{device}/credentials").json["items"]]


def use(service: Service, credential: str) -> None:
    service.internal("POST", "/internal/seen", {"credentials": {credential: time.time_ns()}})


@pytest.fixture
def fleet(service: Service) -> Service:
    for name in ("d1", "d2"):
        service.register(name, tags={"site": "a"})
    service.register("other", tags={"site": "b"})
    return service


def test_secrets_from_before_the_clock_was_set_back_end_all_the_same(fleet, monkeypatch) -> None:
    real_ns = clock.now_ns()
    monkeypatch.setattr(clock, "now_ns", lambda: real_ns - 3_600 * clock.NS_PER_S)
    job_id = rotate(fleet)
    rows = issued(fleet, job_id, 2)

    fleet.admin("POST", f"/v1/rotations/{job_id}:finish")
    wait_until(lambda: job_of(fleet, job_id)["state"] == "done", 10)

    assert credentials(fleet, "d1") == [rows[0]["credential"]]


def test_old_secrets_end_when_all_have_switched(fleet) -> None:
    old = credentials(fleet, "d1")
    job_id = rotate(fleet)
    rows = issued(fleet, job_id, 2)
    during = credentials(fleet, "d1")

    waiting = fleet.admin("GET", f"/v1/rotations/{job_id}/waiting").json["items"]
    use(fleet, rows[0]["credential"])
    left = fleet.admin("GET", f"/v1/rotations/{job_id}/waiting").json["items"]
    use(fleet, rows[1]["credential"])
    wait_until(lambda: job_of(fleet, job_id)["state"] == "done", 10)

    assert [item["device"] for item in waiting] == ["d1", "d2"]
    assert [item["device"] for item in left] == ["d2"]
    assert during == [*old, rows[0]["credential"]]
    assert credentials(fleet, "d1") == [rows[0]["credential"]]
    assert (job_of(fleet, job_id)["done"], job_of(fleet, job_id)["failed"]) == (2, 0)
    assert len(credentials(fleet, "other")) == 1
    assert all(row["secret"] not in fleet.admin("GET", "/v1/audit").text for row in rows)


def test_finish_ends_old_secrets_and_tells_who_had_not_switched(fleet) -> None:
    job_id = rotate(fleet)
    rows = issued(fleet, job_id, 2)
    use(fleet, rows[0]["credential"])

    fleet.admin("POST", f"/v1/rotations/{job_id}:finish")
    wait_until(lambda: job_of(fleet, job_id)["state"] == "done", 10)

    job = job_of(fleet, job_id)
    assert (job["done"], job["failed"], job["result"]["waiting"]) == (1, 1, 1)
    assert credentials(fleet, "d2") == [rows[1]["credential"]]
    assert fleet.admin("POST", f"/v1/rotations/{job_id}:finish").json["code"] == "job_over"


def test_cancel_takes_back_what_nobody_used_and_cuts_nobody_off(fleet) -> None:
    before = {name: credentials(fleet, name) for name in ("d1", "d2")}
    job_id = rotate(fleet)
    rows = issued(fleet, job_id, 2)
    use(fleet, rows[0]["credential"])

    fleet.admin("POST", f"/v1/jobs/{job_id}:cancel")
    wait_until(lambda: job_of(fleet, job_id)["state"] == "cancelled", 10)

    assert credentials(fleet, "d1") == [*before["d1"], rows[0]["credential"]]
    assert credentials(fleet, "d2") == before["d2"]


def test_end_of_the_overlap_ends_the_old_ones(fleet) -> None:
    job_id = rotate(fleet, "d1", overlap_s=0)

    wait_until(lambda: job_of(fleet, job_id)["state"] == "done", 10)

    assert credentials(fleet, "d1") == [issued(fleet, job_id, 1)[0]["credential"]]


def test_devices_that_can_get_none_are_told(fleet) -> None:
    fleet.admin("POST", "/v1/devices/d1:retire")
    for _ in range(15):
        fleet.admin("POST", "/v1/devices/d2/credentials", {})

    rows = issued(fleet, rotate(fleet), 2)

    assert {(row["device"], row["code"]) for row in rows} == {("d1", "device_retired"), ("d2", "too_many_credentials")}


def test_credential_has_a_label(fleet) -> None:
    fleet.admin("POST", "/v1/devices/d1/credentials", {"label": "spare"})

    items = fleet.admin("GET", "/v1/devices/d1/credentials").json["items"]

    assert [item["label"] for item in items] == [None, "spare"]


def test_other_jobs_are_no_rotations(fleet) -> None:
    job = fleet.admin("POST", "/v1/devices:import?job=true", data=b"id\nx\n", content_type="text/csv").json["id"]

    assert fleet.admin("GET", f"/v1/rotations/{job}/waiting").status_code == 404
    assert fleet.admin("POST", f"/v1/rotations/{job}:finish").status_code == 404


def test_connection_to_the_broker_counts_as_a_use(connected_service, dial) -> None:
    secret = connected_service.register("d1")
    device = dial("d1", secret)
    wait_until(device.is_connected)

    def last_used() -> object:
        return connected_service.admin("GET", "/v1/devices/d1/credentials").json["items"][0]["last_used"]

    # A connection right after a change may be left out: who connects again is seen.
    wait_until(lambda: connected_service.admin("GET", "/v1/devices/d1").json["online"])
    if last_used() is None:
        device.crash()
        dial("d1", secret)
    wait_until(last_used, 5)


def test_ended_credentials_keep_no_device_from_a_rotation(service) -> None:
    service.register("d1")
    for _ in range(15):
        service.admin("POST", "/v1/devices/d1/credentials", {})
    with service.app.extensions["headwater.database"].write() as transaction:
        transaction.execute(update(CREDENTIALS).values(not_after_ns=transaction.now_ns - 1))

    job = service.admin("POST", "/v1/rotations", {"query": "id=d1", "overlap_s": 60}).json["id"]

    wait_until(lambda: service.admin("GET", f"/v1/jobs/{job}").json["result"].get("issued") == 1)
