"""Retention by type: what the registry tells the writer, and what becomes of points stored under real times."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ingest.writer.retention import Retention
from series import open_reader, open_writer
from series.port import RangeQuery
from tests.devices.running import Service
from wire import clock
from wire.points import Point

DAY = 86_400 * clock.NS_PER_S


class World:
    """A registry, and a store with a point a day of three devices, ten days back."""

    def __init__(self, service, data) -> None:
        self.service = service
        self.writer, self.reader = open_writer("embedded:", data, retention_days=6), open_reader("embedded:", data)
        self.now_ns = clock.now_ns()
        names = ("p1", "p2", "free")
        points = [Point(name, "m", self.now_ns - day * DAY, {"v": float(day)}) for name in names for day in range(11)]
        self.writer.write(points)

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        return self.service.internal(method, path, body).json

    def apply(self) -> None:
        Retention(self, self.writer, threading.Event()).apply()

    def set_days(self, name: str, days: int | None) -> None:
        self.service.admin("PUT", f"/v1/device-types/{name}", {"retention_days": days})

    def oldest(self) -> dict[str, int]:
        points = self.reader.range(RangeQuery(0, self.now_ns + 1)).points
        return {
            name: max(int(p.fields["v"]) for p in points if p.device == name) for name in {p.device for p in points}
        }


@pytest.fixture
def world(sqlite_config, tmp_path):
    service = Service(sqlite_config)
    made = World(service, tmp_path)
    made.set_days("short", 2)
    made.set_days("long", 9)
    service.register("p1", type="short")
    service.register("p2", type="long")
    service.register("free")
    yield made
    made.writer.close()
    made.reader.close()
    service.stop()


def test_each_device_is_kept_as_its_type_says_and_others_as_the_installation_says(world) -> None:
    world.apply()

    assert world.oldest() == {"p1": 2, "p2": 9, "free": 6}


def test_retention_of_a_type_that_changes_holds_from_the_next_time(world) -> None:
    world.apply()
    world.set_days("short", 8)
    world.set_days("long", 1)
    world.apply()

    assert world.oldest() == {"p1": 2, "p2": 1, "free": 6}
    world.set_days("short", None)
    world.apply()
    assert world.oldest()["p1"] == 2


def test_device_of_another_type_is_kept_as_that_one_says(world) -> None:
    world.service.admin("PATCH", "/v1/devices/p2", {"type": "short"})
    world.service.admin("PATCH", "/v1/devices/p1", {"type": None})
    world.apply()

    assert world.oldest() == {"p1": 6, "p2": 2, "free": 6}


def test_terms_come_page_by_page_and_leave_out_devices_without(service) -> None:
    service.admin("PUT", "/v1/device-types/short", {"retention_days": 2})
    service.admin("PUT", "/v1/device-types/plain", {})
    for name, kind in (("a", "short"), ("b", "plain"), ("c", "short"), ("d", None)):
        service.register(name, type=kind)
    ask = lambda query: service.internal("GET", f"/internal/retention?{query}").json  # noqa: E731 - one line says it

    assert ask("limit=1") == {"items": [{"tenant": "default", "device": "a", "days": 2}], "next": "a"}
    assert ask("limit=1&cursor=a") == {"items": [], "next": "b"}
    assert ask("cursor=a") == {"items": [{"tenant": "default", "device": "c", "days": 2}], "next": None}
