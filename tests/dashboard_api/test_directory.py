from __future__ import annotations

import pytest

from dashboard_api import directory as directory_module
from dashboard_api.directory import PeerDirectory
from tests.dashboard_api.fakes import FakePeer, Platform, device
from wire.devices import TENANT
from wire.errors import PeerUnavailable


def test_reads_all_pages():
    platform = Platform(
        {f"d{at:05}": device(f"d{at:05}", tags={"n": str(at)}) for at in range(directory_module.PAGE + 3)}
    )

    entries = PeerDirectory(FakePeer(platform)).entries(TENANT)

    assert len(entries) == directory_module.PAGE + 3
    assert entries["d00007"].tags == {"n": "7"}
    assert entries["d00007"].is_online


def test_is_asked_once_for_many_readers():
    platform = Platform({"a": device("a")})
    directory = PeerDirectory(FakePeer(platform))

    for _ in range(5):
        directory.entries(TENANT)

    assert len(platform.calls) == 1


def test_stays_as_it_was_while_the_registry_is_away():
    platform = Platform({"a": device("a")})
    directory = PeerDirectory(FakePeer(platform))
    directory.entries(TENANT)
    directory._read_s -= directory_module.FRESH_S
    platform.away.add("devices")

    assert set(directory.entries(TENANT)) == {"a"}


def test_never_read_and_away_is_an_error():
    with pytest.raises(PeerUnavailable):
        PeerDirectory(FakePeer(Platform(away={"devices"}))).entries(TENANT)
