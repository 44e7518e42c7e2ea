"""What devices are told, when, and how often."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.writer import acks
from ingest.writer.acks import EVERY_S, GAPS_EVERY_S, RENEW_S, SHOWN_GAPS, AckBoard, to_acks
from ingest.writer.gaps import Boot, BootChange
from ingest.writer.state import BootAccount, BootReader, DeviceBoots, Progress, WriterState
from wire import clock
from wire.acks import Acks
from wire.errors import Unavailable


def boot_of(*numbers: int, settled_to: int = 2**63, began_ns: int = 1) -> Boot:
    boot = Boot(began_ns=began_ns)
    for number in numbers:
        boot.add(number)
    boot.settle(settled_to)
    return boot


def told(*numbers: int, settled_to: int = 2**63) -> dict[str, object]:
    found = to_acks(DeviceBoots([BootAccount("b", boot_of(*numbers, settled_to=settled_to), 0)]), clock.now_ns())
    assert found is not None
    return found.model_dump(include={"first", "seq", "newest", "missing"})


def test_contiguous_numbers_and_gaps_are_told() -> None:
    assert told(3, 4, 5) == {"first": 3, "seq": 5, "newest": 5, "missing": []}
    assert told(1, 2, 5, 8, 9) == {"first": 1, "seq": 2, "newest": 9, "missing": [(3, 4), (6, 7)]}


def test_nothing_is_said_of_a_gap_in_its_grace_nor_of_what_is_above() -> None:
    assert told(1, 4, 9, 10, settled_to=4) == {"first": 1, "seq": 1, "newest": 4, "missing": [(2, 3)]}
    assert told(1, 4, settled_to=1) == {"first": 1, "seq": 1, "newest": 1, "missing": []}


def test_a_leap_is_told_as_it_is() -> None:
    assert told(1, 2**53)["missing"] == [(2, 2**53 - 1)]


def test_of_many_gaps_the_newest_are_told_and_nothing_below_them() -> None:
    numbers = range(0, 4 * SHOWN_GAPS, 2)

    found = to_acks(DeviceBoots([BootAccount("b", boot_of(*numbers), 0)]), 0)

    assert found is not None
    assert len(found.missing) == SHOWN_GAPS
    assert len(found.model_dump_json()) < 2_000
    covered = [number for number in range(4 * SHOWN_GAPS) if found.covers(number)]
    assert covered == list(range(found.first, 4 * SHOWN_GAPS, 2))
    assert found.first == found.seq == 2 * SHOWN_GAPS - 2


def test_the_boot_that_began_last_leads_whatever_was_heard_last() -> None:
    boots = [BootAccount(f"b{n}", boot_of(1, 2, began_ns=n), 100 - n) for n in range(6)]

    found = to_acks(DeviceBoots(boots), 0)

    assert found is not None
    assert (found.boot_id, [each.boot_id for each in found.earlier]) == ("b5", ["b4", "b3", "b2"])
    assert to_acks(DeviceBoots([]), 0) is None


class Desk:
    """A board over boots in a dict."""

    def __init__(self, per_s: int = 1_000_000) -> None:
        self.boots: dict[str, Boot] = {}
        self.is_away = False
        self.board = AckBoard(self._read, per_s)
        list(self.board.take(0.0))

    def commit(self, device: str, *numbers: int, now_s: float) -> None:
        boot = self.boots.setdefault(device, Boot(began_ns=1))
        for number in numbers:
            boot.add(number)
        boot.settle(2**63)
        self.board.note([BootChange(("default", device, "b"), b"", False, boot.missing(), 0, True, 0)], now_s)

    def take(self, now_s: float) -> list[str]:
        return [topic.split("/")[1] for topic, payload in self.board.take(now_s) if payload]

    def _read(self, device: str, tenant: str) -> DeviceBoots:
        if self.is_away:
            raise Unavailable("writer.db cannot be used")
        return DeviceBoots([BootAccount("b", self.boots[device], 0)] if device in self.boots else [])


def test_a_device_is_told_at_once_and_then_in_turns() -> None:
    desk = Desk()
    desk.commit("d1", 1, now_s=100.0)
    assert desk.take(100.0) == ["d1"]

    for tenth in range(1, 50):
        desk.commit("d1", 1 + tenth, now_s=100.0 + tenth / 10)
        assert desk.take(100.0 + tenth / 10) == []

    assert desk.take(100.0 + EVERY_S) == ["d1"]
    assert desk.take(200.0) == [], "nothing new"


def test_a_gap_is_told_sooner_and_so_is_its_end() -> None:
    desk = Desk()
    desk.commit("d1", 1, now_s=100.0)
    desk.take(100.0)

    desk.commit("d1", 4, now_s=100.1)
    assert desk.take(100.2) == []
    assert desk.take(100.0 + GAPS_EVERY_S) == ["d1"]

    desk.commit("d1", 2, 3, now_s=101.5)
    assert desk.take(101.0 + GAPS_EVERY_S) == ["d1"]


def test_everybody_is_told_again_when_the_broker_came_back() -> None:
    desk = Desk()
    for number in range(20):
        desk.commit(f"d{number}", 1, now_s=100.0)
    assert len(desk.take(100.0)) == 20

    desk.board.renew(101.0)

    assert len(desk.take(101.0 + RENEW_S)) == 20


def test_messages_a_second_are_bounded_and_none_is_lost() -> None:
    desk = Desk(per_s=100)
    for number in range(50):
        desk.commit(f"d{number}", 1, now_s=100.0)

    turns = [desk.take(100.0 + tenth / 10) for tenth in range(8)]

    assert max(len(turn) for turn in turns) <= 11
    assert sorted(name for turn in turns for name in turn) == sorted(f"d{n}" for n in range(50))


def test_devices_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acks, "MAX_DEVICES", 10)
    desk = Desk()
    for number in range(100):
        desk.commit(f"d{number}", 1, now_s=100.0 + number)
        desk.take(100.0 + number)

    assert len(desk.board._entries) <= 11


def test_boots_in_memory_are_bounded_a_device() -> None:
    desk = Desk()
    for number in range(100):
        desk.board.note([BootChange(("default", "d1", str(number)), b"", True, 1, 0, True, 0)], 100.0)

    (entry,) = desk.board._entries.values()
    assert len(entry.missing) <= 4


def test_a_deleted_device_is_cleared_once() -> None:
    desk = Desk()
    desk.commit("d1", 1, now_s=100.0)
    desk.boots.clear()
    desk.board.forget(["d1"], 100.5)
    assert not desk.board.has_cleared_all

    assert list(desk.board.take(101.0)) == [("devices/d1/acks", b"")]
    assert desk.board.has_cleared_all
    assert list(desk.board.take(200.0)) == []


def test_a_file_that_cannot_be_read_stops_nobody() -> None:
    desk = Desk()
    desk.commit("d1", 1, now_s=100.0)
    desk.is_away = True
    assert desk.take(100.0) == []

    desk.is_away = False
    desk.commit("d1", 2, now_s=101.0)

    assert desk.take(100.0 + EVERY_S) == ["d1"]


def test_message_is_made_from_what_is_on_disk(tmp_path: Path) -> None:
    state = WriterState(tmp_path)
    boot = boot_of(1, 2, 4)
    state.commit(Progress(boots=[BootChange(("default", "d1", "b"), boot.to_bytes(), True, 1, 0, True, 5)]))
    reader = BootReader(tmp_path)
    board = AckBoard(reader.read)
    list(board.take(0.0))
    board.note([BootChange(("default", "d1", "b"), b"", True, 1, 0, True, 5)], 1.0)

    ((topic, payload),) = board.take(1.0)

    assert topic == "devices/d1/acks"
    assert json.loads(payload) | {"time": ""} == {
        "boot_id": "b", "first": 1, "seq": 2, "newest": 4, "missing": [[3, 3]], "time": "", "earlier": [],
    }  # fmt: skip
    assert Acks.model_validate_json(payload).covers(4)
    reader.close()
    state.close()
