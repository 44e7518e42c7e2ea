"""Erasing a device's data in the order that lets nothing come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ingest.writer.erasures import MARGIN_NS, Erasures, Passage
from wire.errors import StoreUnavailable

OLD = 1_760_000_000_000_000_000


class World:
    """A registry, a quarantine and a store that note what is asked of them."""

    def __init__(self, since_ns: int = OLD) -> None:
        self.item = {"id": "j1", "tenant": "t", "device": "d1", "since_ns": since_ns}
        self.done: list[Any] = []
        self.did: list[str] = []
        self.oldest_ns: int | None = None
        self.error: Exception | None = None
        self.now_ns = OLD + 10 * MARGIN_NS

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if method == "GET":
            return {"items": [] if self.done else [self.item]}
        self.done.append((path, body))
        return None

    def erase(self, device: str, *, tenant: str) -> int:
        self.did.append(f"quarantine {tenant}/{device}")
        return 2

    def erase_media(self, device: str, tenant: str) -> None:
        self.did.append(f"media {tenant}/{device}")

    def forget(self, devices: Mapping[str, int]) -> None:
        self.did.append(f"numbers {sorted(devices)}")

    def delete(self, device: str, *, tenant: str = "default") -> None:
        if self.error is not None:
            raise self.error
        self.did.append(f"store {tenant}/{device}")


@pytest.fixture
def world() -> World:
    return World()


def erasures(world: World) -> Erasures:
    passage = Passage(lambda: world.oldest_ns, world.forget)
    return Erasures(world, world, world, passage, erase_media=world.erase_media, now_ns=lambda: world.now_ns)


def test_quarantine_goes_first_then_the_store_when_all_has_passed(world) -> None:
    made = erasures(world)
    made.poll()
    made.poll()
    before = list(world.did)
    world.now_ns += 2 * MARGIN_NS
    world.oldest_ns = OLD  # a reading of before is on its way still
    made.poll()
    waiting = list(world.did)
    world.oldest_ns = world.now_ns
    made.poll()

    assert before == waiting == ["quarantine t/d1"]
    assert world.did == ["quarantine t/d1", "store t/d1", "media t/d1", "numbers ['d1']"]
    assert world.done == [("/internal/erasures/j1:done", {"quarantined": 2, "refusal": None})]


def test_device_cut_off_just_now_is_waited_for(world) -> None:
    world.item["since_ns"] = world.now_ns

    erasures(world).poll()

    assert world.did == []


def test_store_that_is_away_is_asked_again(world) -> None:
    made = erasures(world)
    made.poll()
    world.now_ns += 2 * MARGIN_NS
    world.error = StoreUnavailable("away")
    made.poll()
    assert world.done == []

    world.error = None
    made.poll()

    assert world.done


def test_engine_that_cannot_delete_is_said(world) -> None:
    Erasures(world, world, None, Passage(lambda: None, world.forget)).poll()

    assert world.done[0][1]["refusal"]
    assert world.did == []
