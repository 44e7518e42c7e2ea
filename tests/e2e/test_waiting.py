"""More devices want to wait for commands over HTTP than may: those beyond are told when to come again, and lose nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.e2e.platform import Answer, Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
MAY_WAIT, DEVICES = 3, 7
POLL = "/v1/device/commands?wait=12"


def ask(platform: Installation, device: Device, method: str, path: str, body: object = None) -> Answer:
    return platform.call(method, path, body, Authorization=f"Bearer {device.bearer}")


def wait_for_command(platform: Installation, device: Device) -> Answer:
    """Come again as long as there is no room, or nothing to do."""
    while (answer := ask(platform, device, "GET", POLL)).status in (204, 503):
        pass
    return answer


def answer_command(platform: Installation, device: Device, polled: Answer) -> None:
    [command] = polled.body["commands"]
    replied = ask(platform, device, "POST", f"/v1/device/commands/{command['id']}/reply", {"result": device.id})
    assert replied.status == 200


def test_devices_beyond_the_bound_come_again_and_lose_nothing(tmp_path: Path) -> None:
    platform = Installation(tmp_path / "data").start(HEADWATER_MOST_WAITING=str(MAY_WAIT))
    try:
        devices = [platform.add_device(f"poller-{number}") for number in range(DEVICES)]
        waiting: dict[str, Answer] = {}
        threads = [
            threading.Thread(target=lambda d=each: waiting.update({d.id: wait_for_command(platform, d)}), daemon=True)
            for each in devices[:MAY_WAIT]
        ]
        for thread in threads:
            thread.start()
        beyond = devices[MAY_WAIT:]
        wait_until(lambda: ask(platform, beyond[0], "GET", POLL.replace("12", "1")).status == 503, what="full")

        refused = [ask(platform, each, "GET", POLL) for each in beyond]
        at_once = ask(platform, beyond[0], "GET", "/v1/device/commands")
        action = {"do": "command", "command": {"name": "blink", "deadline_s": 600}}
        job = platform.call("POST", "/v1/devices:bulk", {"query": "id~poller-*", "action": action}).body["id"]
        for thread in threads:
            thread.join(20)
        wait_until(lambda: platform.get(f"/v1/jobs/{job}")["state"] == "done")
        for device in devices:
            answer_command(platform, device, waiting.get(device.id) or ask(platform, device, "GET", POLL))

        assert [(each.status, each.body["code"], each.headers["Retry-After"]) for each in refused] == [
            (503, "too_many_waiting", "10")
        ] * len(beyond)
        assert at_once.status == 204
        ended = platform.get(f"/v1/commands?job={job}")["items"]
        assert sorted((each["device"], each["state"], each["result"], each["tries"]) for each in ended) == [
            (device.id, "succeeded", device.id, 1) for device in devices
        ]
    finally:
        platform.stop()
