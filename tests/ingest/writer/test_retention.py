"""Retention as the writer applies it, over what a registry says."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from ingest.writer.retention import AGAIN_S, DONE, FILES, ROWS, TURN_S, Retention
from series.port import Expired, Term
from wire.errors import PeerUnavailable, StoreUnavailable

NOW = 1_767_312_000_000_000_000


class World:
    """A registry that answers in pages of two, and a store that notes what it is told."""

    def __init__(self) -> None:
        self.terms = [{"tenant": "t", "device": f"d{number}", "days": number + 1} for number in range(5)]
        self.error: Exception | None = None
        self.told: list[Term] = []
        self.steps = [Expired(files=2), Expired(), Expired(rows=5)]
        self.stopping = threading.Event()

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self.error is not None:
            raise self.error
        after = path.partition("?cursor=")[2]
        items = [term for term in self.terms if term["device"] > after][:2]
        return {"items": items, "next": items[-1]["device"] if len(items) == 2 else None}

    def expire(self, now_ns: int, kept: Iterable[Term] = ()) -> Iterator[Expired]:
        assert now_ns == NOW
        self.told = list(kept)
        yield from self.steps


@pytest.fixture
def world() -> World:
    return World()


def apply(world: World, *, has_registry: bool = True) -> float:
    registry = world if has_registry else None
    return Retention(registry, world, world.stopping, now_ns=lambda: NOW).apply()


def test_every_page_of_the_registry_reaches_the_store(world) -> None:
    before = FILES._value.get(), ROWS._value.get()

    assert apply(world) == TURN_S
    assert world.told == [Term("t", f"d{number}", number + 1) for number in range(5)]
    assert (FILES._value.get() - before[0], ROWS._value.get() - before[1]) == (2, 5)
    assert DONE._value.get() == NOW / 1e9


def test_without_a_registry_the_stores_own_retention_holds(world) -> None:
    assert apply(world, has_registry=False) == TURN_S
    assert world.told == []


@pytest.mark.parametrize("error", [PeerUnavailable("away"), StoreUnavailable("away")])
def test_registry_or_store_that_is_away_is_asked_again_soon(world, error) -> None:
    world.error = error

    assert apply(world) == AGAIN_S
    assert world.told == []


def test_stop_ends_it_between_two_steps(world) -> None:
    world.stopping.set()
    before = ROWS._value.get()

    assert apply(world) == 0.0
    assert ROWS._value.get() == before
