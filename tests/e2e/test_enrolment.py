"""Devices that register themselves, as a device and an operator see it."""

from __future__ import annotations

import json

import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until
from wire.group_keys import derive_key, read_key

pytestmark = pytest.mark.e2e


def test_first_message_with_a_derived_key_registers_the_device_and_opens_the_broker(installation: Installation) -> None:
    made = json.loads(installation.run("enrol", "group", "pumps", "--ids", "pump-*", "--json", check=True).stdout)
    key = derive_key(read_key(made["secret"]), "pump-7")
    device = Device("pump-7", key, f"pump-7.{key}")

    assert installation.post(device, b'{"temp": 21.5}').status == 202

    assert installation.get("/v1/devices/pump-7")["state"] in ("registered", "active")
    installation.wait_for_broker(device)
    stranger = Device("pump-8", key, f"pump-8.{key}")
    assert installation.post(stranger, b'{"temp": 21.5}').status == 401


def test_token_gives_a_device_its_own_credential(installation: Installation) -> None:
    token = installation.run("enrol", "token", "hall", "--type", "pump", check=True).stdout.strip()

    answer = installation.call("POST", "/v1/enrol", {"id": "e-1"}, Authorization=f"Bearer {token}")

    assert answer.status == 201
    device = Device("e-1", answer.body["credential"]["secret"], answer.body["credential"]["bearer"])
    assert installation.post(device, b'{"temp": 21.5}').status == 202
    assert installation.call("POST", "/v1/enrol", {"id": "e-2"}, Authorization=f"Bearer {token}").status == 403


def test_data_of_a_held_device_appears_when_it_is_accepted(installation: Installation) -> None:
    token = installation.run("enrol", "token", "probation", "--hold", check=True).stdout.strip()
    made = installation.call("POST", "/v1/enrol", {"id": "h-1"}, Authorization=f"Bearer {token}").body["credential"]
    device = Device("h-1", made["secret"], made["bearer"])

    answer = installation.post(device, b'{"by": 1}')
    assert (answer.status, answer.body["quarantined"][0]["code"]) == (202, "device_held")
    installation.wait_for_broker(device)
    assert installation.publish(device, "devices/h-1/telemetry", b'{"by": 2}').returncode == 0
    wait_until(lambda: len(installation.quarantined("h-1")) == 2, 5)
    assert installation.points("h-1") == []

    installation.run("enrol", "accept", "h-1", check=True)

    wait_until(lambda: len(installation.points("h-1")) == 2, 10, what="both messages are stored")
    assert installation.quarantined("h-1") == []
