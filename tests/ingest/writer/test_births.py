"""Who has an id now is asked before a reading counts as a copy, and not more often than that takes."""

from __future__ import annotations

from typing import Any

from ingest.readings import Reading
from ingest.writer.births import Births
from wire.errors import PeerUnavailable


class Registry:
    """The registry over the births of its devices; the order of `changed` is that of its revisions."""

    def __init__(self) -> None:
        self.born: dict[str, int] = {}
        self.changed: list[str] = []
        self.asked: list[str] = []
        self.is_away = False

    def register(self, device: str, born_ns: int) -> None:
        self.born[device] = born_ns
        self.changed.append(device)

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        self.asked.append(method)
        if self.is_away:
            raise PeerUnavailable("away")
        if method == "GET":
            return {"revision": len(self.changed), "devices": self.changed[int(path.rpartition("=")[2]) :]}
        found = [{"id": id_, "created_ns": self.born[id_]} for id_ in body["ids"] if id_ in self.born]
        return {"devices": found, "types": {}, "revision": len(self.changed)}


class Clock:
    now_ns = 100

    def __call__(self) -> int:
        return self.now_ns


def reading(received_ns: int, device: str = "d1", born_ns: int = 5) -> Reading:
    return Reading(device, "m", 1, received_ns, {"t": 1.0}, boot_id="b", seq=1, born_ns=born_ns)


def test_birth_of_a_device_that_got_the_id_meanwhile_is_found() -> None:
    registry = Registry()
    births = Births(registry, 0, now_ns=Clock())
    registry.register("d1", 50)

    assert births.of(reading(60)) == 50
    assert births.of(reading(40)) == 5, "received before: of the device that is no more"
    assert births.of(reading(60, "d2")) == 5, "unchanged"


def test_one_question_answers_for_all_received_before_it() -> None:
    registry, now = Registry(), Clock()
    births = Births(registry, 0, now_ns=now)
    for received_ns in (10, 20, 99):
        births.of(reading(received_ns))
    assert registry.asked == ["GET"]

    now.now_ns = 200
    registry.register("d1", 150)
    assert [births.of(reading(received_ns)) for received_ns in (160, 170)] == [150, 150]
    assert registry.asked == ["GET", "GET", "POST"]


def test_device_that_was_deleted_keeps_the_birth_its_readings_say() -> None:
    registry = Registry()
    registry.changed.append("d1")

    assert Births(registry, 0, now_ns=Clock()).of(reading(60)) == 5


def test_registry_that_is_away_is_not_waited_for_again_and_again() -> None:
    registry = Registry()
    registry.is_away = True
    births = Births(registry, 0, now_ns=Clock())

    assert [births.of(reading(received_ns)) for received_ns in range(200, 210)] == [5] * 10
    assert registry.asked == ["GET"]


def test_what_is_remembered_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr("ingest.writer.births.MAX_CHANGED", 3)
    registry, now = Registry(), Clock()
    births = Births(registry, 0, now_ns=now)
    for number in range(10):
        registry.register(f"d{number}", 50)
        now.now_ns += 10
        births.of(reading(now.now_ns))

    assert len(births._born) <= 3
