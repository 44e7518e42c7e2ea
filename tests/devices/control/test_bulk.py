from __future__ import annotations

from functools import partial

from devices.bulk.service import JOB_KIND, PART_TOGETHER
from devices.control.door import DeviceDoor
from devices.control.wiring import Control
from devices.jobs.kinds import Job
from devices.jobs.store import JobStore
from devices.rows import Who
from tests.support.waiting import wait_until
from wire import clock
from wire.clock import NS_PER_S
from wire.finding import SendCommand

BLINK = {"do": "command", "command": {"name": "blink", "deadline_s": 60}}


def finished(service, action):
    started = service.admin("POST", "/v1/devices:bulk", {"query": "type=pump", "action": action})
    assert started.status_code == 202, started.json
    return ended(service, started.json["id"])


def ended(service, job_id: str):
    path, ends = f"/v1/jobs/{job_id}", ("done", "failed", "cancelled")
    return wait_until(lambda: (job := service.admin("GET", path).json)["state"] in ends and job)


def states(service, job_id: str) -> set[str]:
    return {item["state"] for item in service.admin("GET", f"/v1/commands?job={job_id}&limit=1000").json["items"]}


def test_query_gets_commands_and_wishes_as_jobs(service) -> None:
    for number in range(60):  # more than one turn
        service.register(f"d{number:02}", type="pump" if number % 2 else "tank")

    sent = finished(service, {"do": "command", "command": {"name": "blink", "params": {"times": 3}}})
    wished = finished(service, {"do": "desire", "desired": {"interval": 30}})

    assert [(job["state"], job["done"], job["failed"]) for job in (sent, wished)] == [("done", 30, 0)] * 2
    items = service.admin("GET", f"/v1/commands?job={sent['id']}").json["items"]
    assert {(item["device"], item["name"]) for item in items} == {(f"d{n:02}", "blink") for n in range(1, 60, 2)}
    assert {item["idempotency_key"] for item in items} == {sent["id"]}  # a turn that is repeated sends none twice
    assert service.admin("GET", "/v1/devices/d01/twin").json["desired"] == {"interval": 30}
    assert service.admin("GET", "/v1/devices/d02/twin").json["desired_version"] == 0


def test_wish_that_is_no_patch_fails_the_job(service) -> None:
    service.register("d1", type="pump")

    job = finished(service, {"do": "desire", "desired": {"": 1}})

    assert (job["state"], "not a legal name" in str(job["error"])) == ("failed", True)


def test_commands_of_a_bulk_action_are_cancelled_together(service) -> None:
    for number in range(5):
        service.register(f"d{number}", type="pump")
    service.admin("POST", "/v1/devices/d1/commands", {"name": "other"})
    job = finished(service, BLINK)

    told = service.admin("POST", "/v1/commands:cancel", {"job": job["id"]}).json
    again = service.admin("POST", "/v1/commands:cancel", {"job": job["id"]}).json
    of_another_tenant = service.caller("viewer")("POST", "/v1/commands:cancel", {"job": job["id"]})

    assert (told, again) == ({"cancelled": 5, "open": False}, {"cancelled": 0, "open": False})
    assert states(service, job["id"]) == {"cancelled"}
    assert service.admin("GET", "/v1/commands?name=other").json["items"][0]["state"] == "queued"
    assert of_another_tenant.status_code == 403
    trail = service.admin("GET", "/v1/audit?action=command.cancel").json["items"]
    assert sorted(entry["object"] for entry in trail) == [f"d{number}" for number in range(5)]


def test_cancelled_job_takes_back_what_it_sent(service) -> None:
    service.admin("POST", "/v1/devices:import", data=b"id,type\n" + b"".join(b"d%d,pump\n" % n for n in range(1_200)))
    started = service.admin("POST", "/v1/devices:bulk", {"query": "type=pump", "action": BLINK}).json["id"]
    wait_until(lambda: service.admin("GET", f"/v1/jobs/{started}").json["done"] >= PART_TOGETHER)

    service.admin("POST", f"/v1/jobs/{started}:cancel")
    job = ended(service, started)

    if job["state"] == "cancelled":  # else it was faster
        assert job["result"]["cancelled"] == job["done"]
        assert states(service, started) == {"cancelled"}


def test_deadline_of_a_bulk_action_counts_from_its_start(service) -> None:
    service.register("d1")
    database = service.app.extensions["headwater.database"]
    control = Control(database, service.config, DeviceDoor(None, None, None, lambda *_: None))
    who = Who("token:t", "", "default")
    begun_ns = clock.now_ns() - 40 * NS_PER_S
    send = control.deeds().deeds["command"]
    to = partial(send, action=SendCommand.model_validate(BLINK))

    in_time = to(Job("j1", "default", JOB_KIND, {}, who, created_ns=begun_ns))(["d1"])[0]
    too_late = to(Job("j2", "default", JOB_KIND, {}, who, created_ns=begun_ns - 30 * NS_PER_S))(["d1"])[0]

    assert in_time.deadline_ns == begun_ns + 60 * NS_PER_S
    assert too_late.code == "deadline_over"
    assert JobStore(database).live(JOB_KIND) == []
