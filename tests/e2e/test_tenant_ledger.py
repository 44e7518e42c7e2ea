"""Each tenant sees its own balance sheet, which balances also when the writer is killed with work in hand."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
SUMS = ("received", "accepted", "stored", "pending", "duplicates", "quarantined", "refused")


def sheet(installation: Installation, tenant: str) -> dict[str, Any]:
    answer = installation.call("GET", "/v1/ledger", Headwater_Tenant=tenant)
    assert answer.status == 200, answer
    told = answer.body
    assert told["tenant"] == tenant
    assert told["received"] == told["accepted"] + told["quarantined"] + told["refused"]
    assert told["accepted"] == told["stored"] + told["pending"] + told["duplicates"]
    return {name: told[name] for name in SUMS}


def make(installation: Installation, tenant: str) -> Device:
    assert installation.call("POST", "/v1/tenants", {"id": tenant}).status == 201
    answer = installation.call("POST", "/v1/devices", {"id": f"{tenant}-1"}, Headwater_Tenant=tenant)
    credential = answer.body["credential"]
    return Device(f"{tenant}-1", credential["secret"], credential["bearer"])


def send(installation: Installation, device: Device, first: int, count: int) -> None:
    readings = [{"boot_id": "b", "seq": number, "values": {"n": number}} for number in range(first, first + count)]
    assert installation.post(device, json.dumps(readings).encode()).status == 202


def test_two_tenants_balance_over_a_kill_of_the_writer(installation: Installation) -> None:
    one, other = make(installation, "ledger-a"), make(installation, "ledger-b")
    home = installation.settle()
    writer = Path(installation.data / "run/writer.pid")
    accepted = {"ledger-a": 0, "ledger-b": 0}

    for turn in range(6):  # a kill each, right behind what was accepted
        send(installation, one, turn * 10, 10)
        send(installation, one, turn * 10, 4)  # copies
        send(installation, other, turn * 100, 100)
        accepted["ledger-a"] += 14
        accepted["ledger-b"] += 100
        old = writer.read_text()
        os.kill(int(old), signal.SIGKILL)
        assert {tenant: sheet(installation, tenant)["accepted"] for tenant in accepted} == accepted
        wait_until(lambda old=old: writer.exists() and writer.read_text() not in ("", old), 20, "the writer is back")
        assert {tenant: sheet(installation, tenant)["accepted"] for tenant in accepted} == accepted
    assert installation.post(one, b'[{"n":1},5]').status == 202
    assert installation.post(other, b"12", "/v1/telemetry", Content_Type="text/x-unknown").status == 415

    end = installation.settle()
    wait_until(lambda: sheet(installation, "ledger-b")["refused"] == 1, 10, "what was refused is told")
    assert sheet(installation, "ledger-a") == dict(zip(SUMS, (86, 85, 61, 0, 24, 1, 0), strict=True))
    assert sheet(installation, "ledger-b") == dict(zip(SUMS, (601, 600, 600, 0, 0, 0, 1), strict=True))
    assert end["accepted"] - home["accepted"] == 85 + 600
    assert "tenant" not in end
    assert installation.call("GET", "/v1/overview", Headwater_Tenant="ledger-b").body["ledger"]["stored"] == 600


def test_an_operator_of_a_tenant_sees_only_its_own(installation: Installation) -> None:
    device = make(installation, "ledger-c")
    token = installation.call("POST", "/v1/tokens", {"name": "c", "role": "viewer"}, Headwater_Tenant="ledger-c").body
    send(installation, device, 0, 3)
    mine = {"Authorization": f"Bearer {token['token']}"}

    told = wait_until(
        lambda: (found := installation.call("GET", "/v1/ledger", **mine).body)["stored"] == 3 and found, 10, "stored"
    )

    assert (told["tenant"], told["received"], told["accepted"]) == ("ledger-c", 3, 3)
    assert installation.call("GET", "/v1/ledger", None, Headwater_Tenant="default", **mine).status in (401, 403)
