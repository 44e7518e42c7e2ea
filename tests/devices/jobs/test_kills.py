"""kill -9 of the real registry in the middle of an import, a rotation and an erasure: each thing is done once, and told once.

Where random kills hardly ever hit, between any two commits, `tests/devices/onboarding/test_importing.py` kills on purpose.
"""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from chassis.tokens import hash_token
from tests.devices.running import ADMIN, SERVICE
from tests.e2e.platform import free_ports
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
FLEET, IMPORTED, SENT, KILLS = 1_500, 4_000, 2_500, 3


class Registry:
    """`headwater serve devices` on a folder; each start is a new life."""

    def __init__(self, data: Path) -> None:
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self._log = data / "log"
        self._env = os.environ | {
            "HEADWATER_DATA": str(data), "HEADWATER_PORT": self.url.rpartition(":")[2], "HEADWATER_BROKER": "",
            "HEADWATER_OPERATOR_TOKEN": ADMIN, "HEADWATER_SERVICE_TOKEN": SERVICE,
        }  # fmt: skip
        self._http = urllib3.PoolManager(retries=False, timeout=30.0)
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-P", "-m", "compose", "serve", "devices"]
            self._process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._is_ready, 60, what=f"ready; see {self._log}")

    def kill(self) -> None:
        """Kill -9 the master and its workers."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._http.clear()

    def call(
        self, method: str, path: str, body: Any = None, *, token: str = ADMIN, kind: str = "application/json"
    ) -> Any:
        """Call with a token; give the parsed answer, or its text."""
        sent = {"body": body, "headers": {"Content-Type": kind}} if isinstance(body, bytes) else {"json": body}
        headers = {"Authorization": f"Bearer {token}"} | sent.pop("headers", {})
        answer = self._http.request(method, self.url + path, headers=headers, **(sent if body is not None else {}))
        assert answer.status < 300, (path, answer.status, answer.data)
        return answer.json() if "json" in answer.headers.get("Content-Type", "") else answer.data.decode()

    def rows(self, job: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.call("GET", f"/v1/jobs/{job}/result"))))

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return self._http.request("GET", self.url + "/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            return False


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    started = Registry(tmp_path)
    yield started
    started.kill()


def import_of(registry: Registry, prefix: str, count: int, query: str = "") -> Any:
    content = b"id\n" + b"".join(b"%s-%d\n" % (prefix.encode(), number) for number in range(count))
    return registry.call("POST", f"/v1/devices:import{query}", content, kind="text/csv")


def held(registry: Registry, ids: list[str]) -> dict[str, set[str]]:
    found = registry.call("POST", "/internal/devices:lookup", {"ids": ids}, token=SERVICE)["devices"]
    return {each["id"]: {credential["sha256"] for credential in each["credentials"]} for each in found}


def test_jobs_that_are_killed_do_and_tell_each_thing_once(registry: Registry) -> None:
    import_of(registry, "old", FLEET)
    before = held(registry, [f"old-{number}" for number in range(FLEET)])
    registry.call("POST", "/v1/devices", {"id": "gone"})
    erase = registry.call("DELETE", "/v1/devices/gone?data=true")["id"]
    rotation = registry.call("POST", "/v1/rotations", {"query": "id~old-*", "overlap_s": 3600})["id"]
    loading = import_of(registry, "new", IMPORTED, "?job=true")["id"]

    def progress() -> int:
        jobs = [registry.call("GET", f"/v1/jobs/{each}") for each in (loading, rotation)]
        return int(jobs[0]["done"] + jobs[1]["result"].get("issued", 0))

    for _ in range(KILLS):
        seen = progress()
        wait_until(lambda seen=seen: progress() > seen, 60, what="the jobs go on")
        registry.kill()
        registry.start()
    assert registry.call("GET", f"/v1/jobs/{loading}")["state"] == "running", "it was over before the last kill"
    registry.call("POST", f"/internal/erasures/{erase}:done", {"quarantined": 0}, token=SERVICE)
    wait_until(lambda: registry.call("GET", f"/v1/jobs/{loading}")["state"] == "done", 120)
    wait_until(lambda: registry.call("GET", f"/v1/jobs/{rotation}")["result"].get("waiting") == FLEET, 60)
    wait_until(lambda: registry.call("GET", f"/v1/jobs/{erase}")["state"] == "done", 60)

    told = registry.rows(loading)
    assert [int(row["line"]) for row in told] == list(range(2, IMPORTED + 2))
    assert {row["outcome"] for row in told} == {"created"}
    assert held(registry, [row["id"] for row in told]) == {row["id"]: {hash_token(row["secret"])} for row in told}
    rotated = registry.rows(rotation)
    assert sorted(row["device"] for row in rotated) == sorted(before)
    assert held(registry, list(before)) == {
        row["device"]: before[row["device"]] | {hash_token(row["secret"])} for row in rotated
    }
    assert held(registry, ["gone"]) == {}
    assert len(registry.call("GET", "/v1/audit?object=gone&action=device.delete")["items"]) == 1

    registry.call("POST", f"/v1/rotations/{rotation}:finish")
    wait_until(lambda: registry.call("GET", f"/v1/jobs/{rotation}")["state"] == "done", 60)
    assert held(registry, list(before)) == {row["device"]: {hash_token(row["secret"])} for row in rotated}


def test_bulk_commands_that_are_killed_are_sent_once(registry: Registry) -> None:
    import_of(registry, "d", SENT)
    command = {"do": "command", "command": {"name": "blink", "deadline_s": 3600}}
    sending = registry.call("POST", "/v1/devices:bulk", {"query": "id~d-*", "action": command})["id"]

    for _ in range(2):
        seen = registry.call("GET", f"/v1/jobs/{sending}")["done"]
        wait_until(lambda seen=seen: registry.call("GET", f"/v1/jobs/{sending}")["done"] > seen, 60, what="it goes on")
        registry.kill()
        registry.start()
    job = wait_until(lambda: (now := registry.call("GET", f"/v1/jobs/{sending}"))["state"] == "done" and now, 120)

    assert (job["done"], job["failed"], job["total"]) == (SENT, 0, SENT)
    sent, cursor = [], ""
    while cursor is not None:
        page = registry.call("GET", f"/v1/commands?job={sending}&limit=1000{cursor and f'&cursor={cursor}'}")
        sent, cursor = sent + [item["device"] for item in page["items"]], page["next"]
    assert sorted(sent) == sorted(f"d-{number}" for number in range(SENT))
