"""The whole life of one device, from its enrolment to its deletion, with mosquitto_pub, mosquitto_sub and curl only.

After each step the truth is looked at from all sides: the broker, the HTTP door, feed and queries, and the registry.
(curl speaks no websocket; the feed is read by a library.)
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import simple_websocket

from tests.e2e.platform import Installation
from tests.support.waiting import wait_until
from wire.clock import NS_PER_S, parse_time

pytestmark = pytest.mark.e2e
ID = "life-1"
PROMISED_S = 2.0  # how soon a change holds (docs/http.md), by the platform's own times: tools may start later than that
PATIENCE_S = 10.0  # for what has no promise of its own, and for the tools of a crowded machine


class Life:
    """One device and one operator, each with the tools that anybody has."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.operator = installation.token  # `TOKEN@TENANT` acts in another tenant
        self.secret = ""

    def curl(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> tuple[int, Any]:
        """Call as the operator, or with a token or credential; give status and parsed body."""
        command = ["curl", "-sS", "-X", method, "-w", "\n%{http_code}", "-m", "15"]
        command += ["-H", f"Authorization: Bearer {token or self.operator}", self._installation.url + path]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        content, _, status = _run(command).stdout.rpartition("\n")
        return int(status), json.loads(content) if content.strip() else None

    def get(self, path: str) -> Any:
        status, body = self.curl("GET", path)
        assert status == 200, (path, status, body)
        return body

    def post(self, value: int, secret: str | None = None) -> int:
        """Send a reading over HTTP; give the status."""
        return self.curl("POST", "/v1/telemetry", {"value": value}, token=f"{ID}.{secret or self.secret}")[0]

    def pub(self, topic: str, content: Any, secret: str | None = None) -> bool:
        """Publish over MQTT; tell whether the broker took it."""
        sent = ["-q", "1", "-t", f"devices/{ID}/{topic}", "-m", json.dumps(content)]
        return _run(["mosquitto_pub", *self._at_broker(secret), *sent]).returncode == 0

    def sub(self, topic: str, *more: str) -> list[str]:
        return ["mosquitto_sub", *self._at_broker(), "-q", "1", "-t", f"devices/{ID}/{topic}", *more]

    @contextlib.contextmanager
    def listening(self, topic: str = "commands/+", *more: str) -> Iterator[subprocess.Popen[str]]:
        """Stay connected over MQTT; yields when the broker has the subscription."""
        before = self.state("presence")
        with subprocess.Popen(
            self.sub(topic, *more), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as it:
            try:
                if before is not None:
                    wait_until(lambda: self.state("presence") == "online", PATIENCE_S)
                yield it
            finally:
                it.kill()

    @contextlib.contextmanager
    def cut_off(self, action: str) -> Iterator[None]:
        """Hold a connection over MQTT and a long poll over HTTP; after the block, which does what is audited as
        `action`, both must have ended in time: by the audit's time, the presence's and that of the poll's answer."""
        poll = "/v1/device/commands?wait=50"
        waiting = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %header{date}",
            "-H",
            f"Authorization: Bearer {ID}.{self.secret}",
        ]
        with (
            subprocess.Popen([*waiting, self._installation.url + poll], stdout=subprocess.PIPE, text=True) as polling,
            self.listening() as standing,
        ):
            assert polling.poll() is None
            yield
            wait_until(lambda: standing.poll() is not None, PATIENCE_S, what="the broker cuts the connection")
            wait_until(lambda: polling.poll() is not None, PATIENCE_S, what="the long poll ends")
            assert polling.stdout is not None
            status, _, date = polling.stdout.read().partition(" ")
            assert status in ("401", "403")
        begun_s = _seconds(self.get(f"/v1/audit?object={ID}&action={action}&limit=1")["items"][0]["time"])
        assert parsedate_to_datetime(date).timestamp() - begun_s <= allowed_s()  # of whole seconds, rounded down
        wait_until(lambda: self._gone_s() >= begun_s, PATIENCE_S, what="presence tells that it went")
        assert self._gone_s() - begun_s <= allowed_s()

    def _gone_s(self) -> float:
        """Give when the broker's news of its last connection's end came."""
        events = self.get(f"/v1/devices/{ID}/presence")["events"]
        return max((_seconds(each["time"]) for each in events if each["state"] == "offline"), default=0.0)

    def state(self, member: str = "state") -> Any:
        """Give a member of the device in the registry; None: no such device in the operator's tenant."""
        status, body = self.curl("GET", f"/v1/devices/{ID}")
        return body[member] if status == 200 else None

    def values(self) -> list[float]:
        """Give the stored values, oldest first."""
        span = "start=2020-01-01T00:00:00Z&end=2200-01-01T00:00:00Z"
        return [point["fields"]["value"] for point in self.get(f"/v1/query/range?device={ID}&{span}")["points"]]

    @contextlib.contextmanager
    def watching(self) -> Iterator[Callable[[], list[float]]]:
        """Follow the feed as the operator; yields what gives the values seen so far."""
        url = self._installation.url.replace("http", "ws") + "/v1/feed"
        socket = simple_websocket.Client(url, headers={"Authorization": f"Bearer {self.operator}"})
        socket.send(json.dumps({"subscribe": {"devices": [ID]}}))
        seen: list[float] = []

        def look() -> list[float]:
            while (frame := socket.receive(timeout=0.05)) is not None:
                seen.extend(point["fields"]["value"] for point in json.loads(frame)["points"])
            return seen

        try:
            yield look
        finally:
            socket.close()

    def is_out(self, secret: str | None = None) -> bool:
        """Tell whether both doors are shut."""
        return self.post(-1, secret) in (401, 403) and not self.pub("telemetry", {"value": -1}, secret)

    def _at_broker(self, secret: str | None = None) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self._installation.mqtt), "-u", ID, "-P", secret or self.secret, "-i", ID]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def _seconds(time: str) -> float:
    return parse_time(time) / NS_PER_S


def allowed_s() -> float:
    """Give how long the promise may take here: where n times as much wants to run as can, n times as long."""
    return PROMISED_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_whole_life_of_a_device(installation: Installation) -> None:
    life = Life(installation)

    _enrol(life)
    _publish(life)
    _follow_twin_and_commands(life)
    _rotate(life)
    other = _move(life)
    _disable_and_enable(other)
    _retire(other)
    _delete(other)


def _enrol(life: Life) -> None:
    wanted = {"name": "life", "kind": "token", "ids": "life-*", "tags": {"site": "a"}}
    status, made = life.curl("POST", "/v1/enrolments", wanted)
    assert status == 201

    status, enrolled = life.curl("POST", "/v1/enrol", {"id": ID}, token=made["secret"])

    assert status == 201
    life.secret = enrolled["credential"]["secret"]
    assert (life.state(), life.state("tags")) == ("registered", {"site": "a"})
    assert life.curl("POST", "/v1/enrol", {"id": "life-2"}, token=made["secret"])[0] == 403


def _publish(life: Life) -> None:
    with life.watching() as seen:
        wait_until(lambda: life.pub("telemetry", {"value": 1}), PATIENCE_S, what="the broker knows the device")
        assert life.post(2) == 202

        wait_until(lambda: {1.0, 2.0} <= set(seen()), PATIENCE_S, what="the feed shows both")
    wait_until(lambda: sorted(life.values()) == [1.0, 2.0], PATIENCE_S)
    wait_until(lambda: life.state() == "active", PATIENCE_S)
    assert life.post(-1, "wrong") == 401
    assert not life.pub("telemetry", {"value": -1}, "wrong")


def _follow_twin_and_commands(life: Life) -> None:
    assert life.curl("PATCH", f"/v1/devices/{ID}/twin/desired", {"interval": 5})[0] == 200
    wait_until(lambda: _run(life.sub("twin/desired", "-C", "1", "-W", "1")).stdout, PATIENCE_S, what="retained")
    assert json.loads(_run(life.sub("twin/desired", "-C", "1", "-W", "5")).stdout)["desired"] == {"interval": 5}
    assert life.pub("twin/reported", {"interval": 5})
    wait_until(lambda: life.get(f"/v1/devices/{ID}/twin")["reported"] == {"interval": 5}, PATIENCE_S)
    assert life.get(f"/v1/devices/{ID}/twin")["delta"] == {}

    with life.listening("commands/+", "-C", "1") as listening:
        status, command = life.curl("POST", f"/v1/devices/{ID}/commands", {"name": "blink", "params": {"times": 3}})
        assert status == 201
        told = json.loads(listening.communicate(timeout=20)[0])
    assert (told["id"], told["name"], told["params"]) == (command["id"], "blink", {"times": 3})
    assert life.pub(f"commands/{told['id']}/reply", {"state": "succeeded", "result": {"blinked": 3}})
    ended = life.get(f"/v1/commands/{told['id']}?wait=10")
    assert (ended["state"], ended["result"]) == ("succeeded", {"blinked": 3})


def _rotate(life: Life) -> None:
    old = life.secret
    with life.cut_off("credential.rotate"):
        status, made = life.curl("POST", f"/v1/devices/{ID}/credentials:rotate", {"overlap_s": 0})
        assert status == 201
    life.secret = made["credential"]["secret"]

    wait_until(lambda: life.is_out(old), PATIENCE_S)
    wait_until(lambda: life.pub("telemetry", {"value": 3}), PATIENCE_S)
    assert life.post(4) == 202
    assert len(life.get(f"/v1/devices/{ID}/credentials")["items"]) == 1


def _move(life: Life) -> Life:
    assert life.curl("POST", "/v1/tenants", {"id": "life-b", "title": "the other"})[0] == 201
    wait_until(lambda: sorted(life.values()) == [1.0, 2.0, 3.0, 4.0], PATIENCE_S)

    assert life.curl("POST", f"/v1/devices/{ID}:move", {"tenant": "life-b"})[0] == 204

    other = Life(life._installation)
    other.operator, other.secret = f"{life.operator}@life-b", life.secret
    assert (life.state(), other.state()) == (None, "active")
    with life.watching() as seen_before, other.watching() as seen:
        wait_until(lambda: other.post(5) == 202 and 5.0 in seen(), PATIENCE_S, what="the new owner's feed")
        assert other.pub("telemetry", {"value": 6})
        wait_until(lambda: 6.0 in seen(), PATIENCE_S)
        assert 6.0 not in seen_before()
    wait_until(lambda: 6.0 in other.values(), PATIENCE_S)
    assert {1.0, 2.0, 3.0, 4.0}.isdisjoint(other.values())
    assert 6.0 not in life.values()
    return other


def _disable_and_enable(life: Life) -> None:
    with life.cut_off("device.disable"):
        assert life.curl("POST", f"/v1/devices/{ID}:disable")[0] == 200
    wait_until(life.is_out, PATIENCE_S)
    assert life.state() == "disabled"
    assert -1.0 not in life.values()

    assert life.curl("POST", f"/v1/devices/{ID}:enable")[0] == 200
    with life.watching() as seen:
        wait_until(lambda: life.post(7) == 202, PATIENCE_S)
        wait_until(lambda: life.pub("telemetry", {"value": 8}), PATIENCE_S)
        wait_until(lambda: {7.0, 8.0} <= set(seen()), PATIENCE_S)


def _retire(life: Life) -> None:
    with life.cut_off("device.retire"):
        assert life.curl("POST", f"/v1/devices/{ID}:retire")[0] == 200

    wait_until(life.is_out, PATIENCE_S)
    assert life.state() == "retired"
    assert life.get(f"/v1/devices/{ID}/credentials")["items"] == []
    assert 8.0 in life.values()
    assert life.curl("POST", f"/v1/devices/{ID}:enable")[1]["code"] == "device_retired"


def _delete(life: Life) -> None:
    status, job = life.curl("DELETE", f"/v1/devices/{ID}?data=true")
    assert status == 202

    wait_until(lambda: life.get(f"/v1/jobs/{job['id']}")["state"] == "done", 30, what="the job erases all")
    assert life.state() is None
    assert life.values() == []
    assert life.get(f"/v1/query/latest?device={ID}")["points"] == []
    assert life.is_out()
    actions = [entry["action"] for entry in life.get(f"/v1/audit?object={ID}&limit=100")["items"]]
    assert {"device.arrive", "device.disable", "device.enable", "device.retire", "device.delete"} <= set(actions)
