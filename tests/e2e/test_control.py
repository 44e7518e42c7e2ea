"""State and control as a stranger follows the pages: their shell blocks are run, with mosquitto's and curl's clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENDED = ("succeeded", "failed", "expired", "cancelled")
pytestmark = pytest.mark.e2e


def settled(installation: Installation, device: Device, answered: str) -> list[str]:
    """Give the commands that wait, newest first, once none is on its way and the answer to one has come in."""
    items = installation.get(f"/v1/commands?device={device.id}")["items"]
    waiting = [each for each in items if each["state"] not in ENDED]
    is_quiet = all(each["state"] == "queued" and each["id"] != answered for each in waiting)
    return ["none", *(each["id"] for each in waiting)] if is_quiet else []


def is_heard(installation: Installation, device: Device) -> bool:
    """Tell whether the broker has the newest wish for the device, if there is one."""
    version = installation.get(f"/v1/devices/{device.id}/twin")["desired_version"]
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(installation.mqtt), "-u", device.id, "-P", device.secret]
    command += ["-t", f"devices/{device.id}/twin/desired", "-C", "1", "-W", "5"]
    return (
        not version
        or f'"version":{version},'
        in subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    )


def follow(installation: Installation, device: Device, page: str) -> list[str]:
    """Run the blocks of a page in their order; give what each printed."""
    installation.wait_for_broker(device)
    printed, live = [], ["none"]
    for block in re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        live = wait_until(
            lambda answered=live[-1]: settled(installation, device, answered), what="what the block before said"
        )
        wait_until(lambda: is_heard(installation, device), what="the newest wish at the broker")
        told = {
            "URL": installation.url,
            "TOKEN": installation.token,
            "HOST": "127.0.0.1",
            "PORT": str(installation.mqtt),
            "SECRET": device.secret,
            "ID": live[-1],
            "HEADWATER_DATA": str(installation.data),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        text = re.sub(r"\bd1\b", device.id, block)
        done = subprocess.run(["bash", "-ec", text], env=told, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        assert "urn:headwater:error" not in done.stdout, (text, done.stdout)
        printed.append(done.stdout)
    return printed


def test_twin_works_as_printed(installation: Installation, device: Device) -> None:
    _, over_mqtt, _ = follow(installation, device, "twin.md")

    assert '"version":2' in over_mqtt
    twin = installation.get(f"/v1/devices/{device.id}/twin")
    assert (twin["desired"], twin["reported"]["interval"]) == ({"interval": 10}, 10)


def test_commands_work_as_printed(installation: Installation, device: Device) -> None:
    _, over_mqtt, over_http = follow(installation, device, "commands.md")

    assert '"name":"blink"' in over_mqtt
    assert '"name":"blink"' in over_http
    states = [each["state"] for each in installation.get(f"/v1/commands?device={device.id}")["items"]]
    assert states == ["succeeded", "succeeded"]
