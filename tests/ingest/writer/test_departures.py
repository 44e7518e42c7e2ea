"""Deleted devices are forgotten, also when registry, broker or writer are away meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.writer.departures import Departures
from ingest.writer.gaps import EVERYTHING, BootKey
from wire.errors import PeerUnavailable


class Registry:
    """The registry as its callers see it, over a set of ids."""

    def __init__(self, *devices: str) -> None:
        self.devices = set(devices)
        self.changes: list[str] = []
        self.is_away = False
        self.born: dict[str, int] = {}
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
        found = [{"id": id_, "created_ns": self.born.get(id_, 1)} for id_ in body["ids"] if id_ in self.devices]
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

    def outlived_boots(self, gone: Mapping[str, int]) -> list[BootKey]:
        """All that numbered were born at 1."""
        return [("default", device, "b") for device in self.numbered if gone.get(device, 0) > 1]


class Writer:
    def __init__(self, registry: Registry, place: Place) -> None:
        self.forgotten: list[Mapping[str, int]] = []
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

    assert writer.forgotten == [{"d1": EVERYTHING}]
    assert place.revision == 3


def test_the_first_look_asks_only_for_devices_that_number() -> None:
    registry = Registry("d1", *(f"e{n}" for n in range(100)))
    registry.changes = [f"e{n}" for n in range(100)]
    writer = Writer(registry, Place("d1", "d2"))

    writer.departures.poll()

    assert writer.forgotten == [{"d2": EVERYTHING}]
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

    assert again.forgotten == [{"d1": EVERYTHING}]


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

    assert writer.forgotten == [{"d1": EVERYTHING}]


def test_a_device_that_was_added_again_at_once_is_told_from_the_one_before() -> None:
    registry, place = Registry("d1", "d2"), Place("d1", "d2")
    writer = Writer(registry, place)
    writer.departures.poll()

    registry.changes += ["d1", "d2", "d3"]
    registry.devices.add("d3")
    registry.born["d1"] = registry.born["d3"] = 7
    writer.departures.poll()

    assert writer.forgotten == [{"d1": 7}]
