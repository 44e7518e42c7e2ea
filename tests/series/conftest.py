"""The engines that the contract suite runs against; a new engine joins by one class and one line in ENGINES."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from series import open_reader, open_writer
from series.port import Capabilities, Page, RangeQuery, SeriesReader, SeriesWriter, Term, WriteOutcome
from wire.points import FieldValue, Point

ALL_TIME = {"start_ns": -(2**63), "end_ns": 2**63}


class Engine(Protocol):
    """How the suite opens an engine on an empty store, as often as it likes, and makes writes visible."""

    url: str

    def writer(self, retention_days: int | None = None) -> SeriesWriter: ...

    def reader(self) -> SeriesReader: ...

    def settle(self) -> None: ...


class Embedded:
    """Files below a fresh folder; writes are visible at once."""

    url = "embedded:"

    def __init__(self, data: Path) -> None:
        self.data = data

    def writer(self, retention_days: int | None = None) -> SeriesWriter:
        return open_writer(self.url, self.data, retention_days=retention_days)

    def reader(self) -> SeriesReader:
        return open_reader(self.url, self.data)

    def settle(self) -> None:
        return


ENGINES = {"embedded": Embedded}


class Store:
    """An opened engine, spoken to in short sentences."""

    def __init__(self, engine: Engine, retention_days: int | None = None) -> None:
        self.engine = engine
        self.writer = engine.writer(retention_days)
        self.reader = engine.reader()
        self.capabilities: Capabilities = self.writer.capabilities

    def write(self, *points: Point) -> WriteOutcome:
        outcome = self.writer.write(points)
        self.engine.settle()
        return outcome

    def take(self, *points: Point) -> None:
        assert self.write(*points) == WriteOutcome(len(points))

    def range(self, **query: object) -> list[Point]:
        return self.page(**query).points

    def page(self, **query: object) -> Page:
        return self.reader.range(RangeQuery(**{**ALL_TIME, **query}))  # type: ignore[arg-type]

    def count(self, **query: object) -> int:
        return self.reader.count(RangeQuery(**{**ALL_TIME, **query}))  # type: ignore[arg-type]

    def latest(self, device: str = "d1", tenant: str = "default") -> dict[str, tuple[int, FieldValue]]:
        points = self.reader.latest([device], tenant=tenant).points
        return {name: (point.time_ns, value) for point in points for name, value in point.fields.items()}

    def expire(self, now_ns: int, *kept: Term) -> int:
        files = sum(expired.files for expired in self.writer.expire(now_ns, kept))
        self.engine.settle()
        return files

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return ENGINES[request.param](tmp_path)


@pytest.fixture
def store(engine: Engine) -> Iterator[Store]:
    opened = Store(engine)
    yield opened
    opened.close()
