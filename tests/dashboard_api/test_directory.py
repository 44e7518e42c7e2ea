from __future__ import annotations

import pytest

from dashboard_api import directory as directory_module
from dashboard_api.directory import PeerDirectory
from tests.dashboard_api.fakes import FakePeer, Platform, device
from wire.devices import TENANT
from wire.errors import BadRequest, PeerUnavailable


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


def test_query_is_asked_once_for_many_readers_and_read_to_its_end(monkeypatch):
    monkeypatch.setattr(directory_module, "PAGE", 2)
    platform = Platform({name: device(name) | {"type": "pump"} for name in "abcde"})
    directory = PeerDirectory(FakePeer(platform))

    found = [directory.chosen(TENANT, "type=pump") for _ in range(3)]

    assert found == [("a", "b", "c", "d", "e")] * 3
    assert len(platform.calls) == 3


def test_query_goes_on_from_memory_while_the_registry_is_away():
    platform = Platform({"a": device("a") | {"type": "pump"}})
    directory = PeerDirectory(FakePeer(platform))
    directory.chosen(TENANT, "type=pump")
    directory._chosen = {key: (at - directory_module.FRESH_S, ids) for key, (at, ids) in directory._chosen.items()}
    platform.away.add("devices")

    assert directory.chosen(TENANT, "type=pump") == ("a",)
    with pytest.raises(PeerUnavailable):
        directory.chosen(TENANT, "type=tank")


def test_query_that_finds_too_many_is_refused(monkeypatch):
    monkeypatch.setattr(directory_module, "PAGE", 2)
    monkeypatch.setattr(directory_module, "MAX_CHOSEN", 3)
    platform = Platform({name: device(name) | {"type": "pump"} for name in "abcde"})

    with pytest.raises(BadRequest, match="more than 3"):
        PeerDirectory(FakePeer(platform)).chosen(TENANT, "type=pump")
