"""Devices nobody knows, with a key derived from that of their group."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.tokens import hash_token
from ingest.gate import Gate
from tests.ingest.intake_support import SECRET, FakeRegistry
from wire.devices import CredentialRecord
from wire.errors import Unauthorized
from wire.group_keys import derive_key

ADMIT = "/internal/devices:admit"
GROUP_KEY = b"k" * 32


class Enrolling(FakeRegistry):
    """Registers a device whose hash is that of its derived key."""

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if path != ADMIT:
            return super().call(method, path, body, token=token)
        self.calls.append(path)
        digest = hash_token(derive_key(GROUP_KEY, body["id"]))
        if body["sha256"] != digest:
            return {"admitted": False}
        self.add(body["id"])
        self.devices[body["id"]].credentials[:] = [CredentialRecord(id="c-derived", sha256=digest)]
        return {"admitted": True}


@pytest.fixture
def registry() -> Enrolling:
    return Enrolling()


@pytest.fixture
def gate(registry: Enrolling) -> Gate:
    made = Gate(registry)
    made.poll()
    return made


def test_first_message_with_a_derived_key_is_let_in(gate, registry) -> None:
    key = derive_key(GROUP_KEY, "pump-1")

    assert gate.authenticate("pump-1", key)[1] == "c-derived"
    assert gate.authenticate("pump-1", key)[1] == "c-derived"
    assert registry.calls.count(ADMIT) == 1


def test_key_of_another_device_stays_out(gate) -> None:
    with pytest.raises(Unauthorized):
        gate.authenticate("pump-2", derive_key(GROUP_KEY, "pump-1"))


@pytest.mark.parametrize("device_id", ["stranger", "known"])
def test_ordinary_secret_asks_for_no_admission(gate, registry, device_id) -> None:
    registry.add("known")
    with pytest.raises(Unauthorized):
        gate.authenticate(device_id, SECRET[:-1] + "!")

    assert ADMIT not in registry.calls
