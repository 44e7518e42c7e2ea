"""Devices that register themselves, as a device and an operator see it."""

from __future__ import annotations

import json

import pytest

from tests.e2e.platform import Device, Installation
from wire.enrolment import derive_key, read_key

pytestmark = pytest.mark.e2e


def test_first_message_with_a_derived_key_registers_the_device_and_opens_the_broker(installation: Installation) -> None:
    made = json.loads(installation.run("enrol", "group", "pumps", "--ids", "pump-*", "--json", check=True).stdout)
    key = derive_key(read_key(made["secret"]), "pump-7")
    device = Device("pump-7", key, f"pump-7.{key}")

    assert installation.post(device, b'{"temp": 21.5}').status == 202

    assert installation.get("/v1/devices/pump-7")["state"] == "active"
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
