"""Secrets of every kind are used in every way; afterwards they are nowhere but where they belong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import urllib3

from tests.e2e.platform import Device, Installation
from tests.e2e.test_security import log_in, pids, session_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

DOORS = (
    "/v1/telemetry",
    "/v1/telemetry/cbor",
    "/v1/telemetry/msgpack",
    "/v1/telemetry/nosuch",
    "/api/v2/write",
    "/write",
)
CONTENTS = (b'{"a":1}', b"no json", b'{"a":' * 30, b"\xa1\x61a\x01", b"\x81\xa1a\x01")
TOO_LARGE = b"x" * (1024 * 1024 + 1)
PATHS = (
    "/v1/devices",
    "/v1/devices/%00",
    "/v1/audit",
    "/nosuch",
    "/v1/query/latest?device=x",
    "/v1/feed",
    "/devices",
    "/metrics",
)


def test_secrets_are_nowhere_but_where_they_belong(installation: Installation) -> None:
    device = enrol(installation)
    secrets = [*live(installation, device), *look_around(installation, device)]
    secrets += [
        path.read_text().strip() for path in (installation.data / "secrets").iterdir() if path.suffix == ".token"
    ]
    assert len({secret for secret in secrets if len(secret) > 20}) > 15

    seen = {
        "log": installation.output(),
        "audit": json.dumps(installation.get("/v1/audit?limit=1000")),
        "jobs": json.dumps(installation.get("/v1/jobs?limit=100")),
        "status": json.dumps(installation.status()),
        "config": installation.run("config", "show").stdout,
        "ps": " ".join(told(pid) for pid in pids(installation)),
    }
    seen |= {
        str(path): path.read_bytes().decode("latin-1")
        for path in installation.data.rglob("*")
        if path.is_file() and "secrets" not in path.relative_to(installation.data).parts
    }
    ports = json.loads((installation.data / "run/ports.json").read_text())
    metrics = {name: metrics_at(port) for name, port in ports.items()}
    assert [name for name, text in metrics.items() if "# TYPE" not in text or device.id in text] == []
    assert len(metrics) > 6
    seen |= {f"metrics of {name}": text for name, text in metrics.items()}
    assert [(where, secret[:6]) for where, text in seen.items() for secret in secrets if secret in text] == []


def enrol(installation: Installation) -> Device:
    """Register a device by a token of its own, which is a secret, too."""
    made = installation.call("POST", "/v1/enrolments", {"name": "canary", "kind": "token"}).body["secret"]
    answer = installation.call("POST", "/v1/enrol", {"id": "canary-device"}, Authorization=f"Bearer {made}")
    credential = answer.body["credential"]
    for wrong in (made + "x", f"{made}\x7f"):
        installation.call("POST", "/v1/enrol", {"id": "canary-two"}, Authorization=f"Bearer {wrong}")
    return Device("canary-device", credential["secret"], credential["bearer"])


def live(installation: Installation, device: Device) -> list[str]:
    """Lead the life of a device, at each door with good and bad content; give the secrets it had."""
    installation.wait_for_broker(device)
    installation.publish(device, f"devices/{device.id}/telemetry/cbor", b"no cbor")
    for content in (*CONTENTS, b"m a=1", TOO_LARGE):  # of what is too large nginx quotes the request
        installation.post(None, content, path=f"/api/v1/{device.bearer}/telemetry")
        installation.post(None, content, path=f"/write?u={device.id}&p={device.secret}")
        for door in DOORS:
            installation.post(device, content, path=door)
    installation.call("POST", f"/v1/devices/{device.id}/commands", {"name": "blink"})
    installation.call("GET", "/v1/device/commands", Authorization=f"Bearer {device.bearer}")
    installation.call("PATCH", "/v1/device/twin/reported", {"a": 1}, Authorization=f"Bearer {device.bearer}")
    rotated = installation.run("device", "rotate", device.id, "--json", check=True).stdout
    second = json.loads(rotated)["credential"]["secret"]
    after = Device(device.id, second, f"{device.id}.{second}")
    wait_until(lambda: installation.post(after, b'{"a":2}').status == 202, 10)
    installation.post(device, b'{"a":3}')  # refused: it is over
    installation.call("POST", f"/v1/devices/{device.id}:disable")
    installation.post(after, b'{"a":4}')
    installation.publish(after, f"devices/{device.id}/telemetry", b'{"a":4}')
    installation.call("POST", f"/v1/devices/{device.id}:retire")
    installation.post(after, b'{"a":5}')
    return [device.secret, second]


def look_around(installation: Installation, device: Device) -> list[str]:
    """Ask for all sorts of things with the tokens of people and programs; give these."""
    made = installation.call("POST", "/v1/tokens", {"name": "canary", "role": "viewer"}).body["token"]
    guest = installation.call("POST", "/v1/invitations", {"name": "canary-guest", "role": "viewer"}).body
    installation.call("GET", guest["path"], Authorization="")
    session = session_of(installation, "canary", "canary-word-of-a-person")
    for token in (made, session, device.bearer, f"{made}@other", f"{made}x"):
        for path in PATHS:
            installation.call("GET", path, Authorization=f"Bearer {token}")
            installation.call("GET", path, Authorization="", Cookie=f"headwater_session={token}")
    log_in(installation, "canary", "canary-word-of-a-person2")
    return [made, session, "canary-word-of-a-person", guest["token"]]


def metrics_at(port: int) -> str:
    return urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", timeout=10.0).data.decode()


def told(pid: int) -> str:
    return " ".join(Path(f"/proc/{pid}/{name}").read_bytes().decode("latin-1") for name in ("cmdline", "environ"))
