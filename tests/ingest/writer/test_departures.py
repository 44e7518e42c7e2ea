"""Deleted devices are forgotten, also when registry, broker or writer are away meanwhile."""

from __future__ import annotations

from typing import Any

from ingest.writer.departures import Departures
from wire.errors import PeerUnavailable


class Registry:
    """The registry as its callers see it, over a set of ids."""

    def __init__(self, *devices: str) -> None:
        self.devices = set(devices)
        self.changes: list[str] = []
        self.is_away = False
        self.asked: list[list[str]] = []

    def delete(self, *devices: str) -> None:
        self.devices -= set(devices)
        self.changes += devices

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self.is_away:
            raise PeerUnavailable("away")
        if method == "GET":
            since = int(path.rpartition("=")[2])
            return {"revision": len(self.changes) + 1, "devices": self.changes[max(0, since - 1) :]}
        self.asked.append(body["ids"])
        found = [{"id": device} for device in body["ids"] if device in self.devices]
        return {"devices": found, "types": {}, "revision": 1}


class Place:
    def __init__(self, *numbered: str) -> None:
        self.numbered = list(numbered)
        self.revision = 0

    def registry_revision(self) -> int:
        return self.revision

    def set_registry_revision(self, revision: int) -> None:
        self.revision = revision

    def numbered_devices(self) -> list[str]:
        return self.numbered


class Writer:
    def __init__(self, registry: Registry, place: Place) -> None:
        self.forgotten: list[set[str]] = []
        self.is_done = True
        self.departures = Departures(registry, place, self.forgotten.append, lambda: self.is_done)


def test_a_deleted_device_is_forgotten_once() -> None:
    registry, place = Registry("d1", "d2"), Place()
    writer = Writer(registry, place)
    writer.departures.poll()

    registry.delete("d1")
    registry.changes.append("d2")
    writer.departures.poll()
    writer.departures.poll()

    assert writer.forgotten == [{"d1"}]
    assert place.revision == 3


def test_the_first_look_asks_only_for_devices_that_number() -> None:
    registry = Registry("d1", *(f"e{n}" for n in range(100)))
    registry.changes = [f"e{n}" for n in range(100)]
    writer = Writer(registry, Place("d1", "d2"))

    writer.departures.poll()

    assert writer.forgotten == [{"d2"}]
    assert registry.asked == [["d1", "d2"]]


def test_what_was_not_done_before_a_crash_is_done_after_it() -> None:
    registry, place = Registry("d1"), Place()
    writer = Writer(registry, place)
    writer.departures.poll()
    writer.departures.poll()
    registry.delete("d1")
    writer.is_done = False
    writer.departures.poll()
    writer.departures.poll()

    again = Writer(registry, place)
    again.departures.poll()

    assert again.forgotten == [{"d1"}]


def test_a_registry_that_is_away_is_asked_again() -> None:
    registry, place = Registry("d1"), Place()
    writer = Writer(registry, place)
    writer.departures.poll()
    registry.delete("d1")
    registry.is_away = True
    writer.departures.poll()
    assert writer.forgotten == []

    registry.is_away = False
    writer.departures.poll()

    assert writer.forgotten == [{"d1"}]
