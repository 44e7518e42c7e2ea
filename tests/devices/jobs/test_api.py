from __future__ import annotations

from devices.jobs.kinds import Job
from devices.jobs.store import JobStore
from devices.rows import Who
from tests.support.waiting import wait_until


def test_jobs_are_listed_shown_and_not_cancelled_when_over(service) -> None:
    JobStore(service.app.extensions["headwater.database"]).add(Job("j1", "default", "unknown", {"a": 1}, Who("t")))

    wait_until(lambda: service.admin("GET", "/v1/jobs/j1").json["state"] == "failed")
    shown = service.admin("GET", "/v1/jobs/j1").json
    listed = service.admin("GET", "/v1/jobs?state=failed&kind=unknown&limit=1").json
    again = service.admin("POST", "/v1/jobs/j1:cancel")

    assert (shown["error"], shown["spec"]) == ("this version knows no jobs of kind unknown", {"a": 1})
    assert [item["id"] for item in listed["items"]] == ["j1"]
    assert service.admin("GET", f"/v1/jobs?cursor={listed['next']}").json["items"] == []
    assert (again.status_code, again.json["code"]) == (409, "job_over")
    assert service.admin("GET", "/v1/jobs/j1/result").json["code"] == "result_not_found"
    assert service.admin("DELETE", "/v1/jobs/j1/result").status_code == 204


def test_unknown_and_odd_jobs_are_not_found(service) -> None:
    for job_id in ("none", "%00", "a%2Fb"):
        assert service.admin("GET", f"/v1/jobs/{job_id}").status_code == 404
        assert service.admin("POST", f"/v1/jobs/{job_id}:cancel").status_code in (404, 405)
    assert service.admin("GET", "/v1/jobs?state=odd").status_code == 400
