from __future__ import annotations

from tests.support.waiting import wait_until


def finished(service, action):
    started = service.admin("POST", "/v1/devices:bulk", {"query": "type=pump", "action": action})
    assert started.status_code == 202, started.json
    path = f"/v1/jobs/{started.json['id']}"
    return wait_until(lambda: (job := service.admin("GET", path).json)["state"] in ("done", "failed") and job)


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
