"""The gap audit: what is missing of each boot, and how much of that can be remembered."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.readings import Reading
from ingest.writer import gaps
from ingest.writer.gaps import EVERYTHING, GRACE_S, MAX_JUMP, MAX_RANGES, Boot, BootKey, Boots
from wire.points import SERVER_TIME

LATER_S = 2 * GRACE_S


def boot_of(numbers: Iterable[int]) -> Boot:
    boot = Boot()
    for number in numbers:
        boot.add(number)
    return boot


def settled(numbers: Iterable[int]) -> Boot:
    boot = boot_of(numbers)
    boot.settle(2**63)
    return boot


def reading(
    number: int, boot_id: str = "b", time_ns: int = 0, flags: int = 0, born_ns: int = 0, received_ns: int = 77
) -> Reading:
    return Reading(
        "d1", "telemetry", time_ns or number + 1, received_ns, {"t": 1.5}, flags=flags, boot_id=boot_id, seq=number,
        born_ns=born_ns,
    )  # fmt: skip


class Disk:
    """What a commit keeps, and the boots of a process that reads it back."""

    def __init__(self) -> None:
        self.kept: dict[BootKey, bytes] = {}
        self.unsettled: set[BootKey] = set()
        self.boots = Boots(self.kept.get)

    def take(self, *numbers: int, boot_id: str = "b") -> list[bool]:
        return [self.boots.is_repeat(reading(number, boot_id)) for number in numbers]

    def commit(self, now_s: float) -> None:
        for change in self.boots.take_changes(now_s):
            self.kept[change.key] = change.content
            self.unsettled = self.unsettled - {change.key} if change.is_settled else self.unsettled | {change.key}

    def restart(self) -> None:
        self.boots = Boots(self.kept.get, self.unsettled)

    def missing(self, boot_id: str = "b") -> int:
        return Boot.from_bytes(self.kept["default", "d1", boot_id]).missing()


@given(st.lists(st.integers(0, 60)))
def test_ranges_behave_like_a_set(numbers: list[int]) -> None:
    boot, model = Boot(), set()

    for number in numbers:
        assert boot.add(number) == (number not in model)
        model.add(number)

    pairs = list(zip(boot.lows, boot.highs, strict=True))
    assert {n for low, high in pairs for n in range(low, high + 1)} == model
    assert all(high + 1 < low for (_, high), (low, _) in pairwise(pairs))


@given(st.sets(st.integers(0, 60), min_size=1))
def test_missing_is_what_lies_between(numbers: set[int]) -> None:
    boot = settled(numbers)
    left_out = set(range(min(numbers), max(numbers))) - numbers

    assert boot.missing() == len(left_out)
    assert {n for first, last in boot.missing_spans() for n in range(first, last + 1)} == left_out
    assert boot.first == min(numbers)
    assert boot.contiguous_to == min(left_out, default=max(numbers) + 1) - 1


@given(st.lists(st.integers(0, 2**63), min_size=1))
def test_a_boot_survives_being_kept(numbers: list[int]) -> None:
    boot = settled(numbers)

    again = Boot.from_bytes(boot.to_bytes())

    assert again == boot
    assert not any(again.add(number) for number in numbers)


def test_ranges_of_an_earlier_version_are_read() -> None:
    again = Boot.from_bytes(gaps._encoder.encode(([1, 5], [3, 9])))

    assert (again.lows, again.highs, again.missing()) == ([1, 5], [3, 9], 0)
    again.settle(9)
    assert again.missing() == 1


def test_a_boot_that_a_disk_damaged_begins_anew_and_stops_nobody() -> None:
    boots = Boots(lambda _: b"\xc1 damaged")
    readings = [Reading("d1", "telemetry", n, n, {"t": n}, boot_id="b", seq=n) for n in (7, 7)]

    assert [boots.is_repeat(each) for each in readings] == [False, True]
    assert [change.is_new for change in boots.take_changes(0.0)] == [True]


@given(st.lists(st.integers(0, 5_000), max_size=1_500))
def test_bounded_ranges_forget_but_never_invent(numbers: list[int]) -> None:
    boot, model = Boot(), set()

    for number in numbers:
        if not boot.add(number):
            assert number in model
        model.add(number)

    assert len(boot.lows) <= MAX_RANGES


def test_forgotten_gaps_stay_counted() -> None:
    count = MAX_RANGES * 3
    boot = settled(range(0, 2 * count, 2))

    assert len(boot.lows) == MAX_RANGES
    assert boot.missing() == count - 1
    assert (boot.first, boot.contiguous_to) == (0, 0)
    assert len(boot.to_bytes()) < 5_000
    assert boot.add(1), "so far back nothing is known"
    assert (boot.missing(), len(boot.lows)) == (count - 1, MAX_RANGES)


def test_a_leap_is_no_loss() -> None:
    boot = settled([1, 2, 4, 2**53, 2**53 + 2])

    assert boot.missing() == 2
    assert boot.jumps() == 1
    assert settled([0, MAX_JUMP + 1]).missing() == MAX_JUMP


def test_a_gap_is_missing_after_its_grace_and_not_before() -> None:
    disk = Disk()
    disk.take(1, 2, 5)

    disk.commit(100.0)
    assert disk.missing() == 0
    disk.commit(100.0 + GRACE_S - 0.1)
    assert disk.missing() == 0
    disk.commit(100.0 + GRACE_S)

    assert disk.missing() == 2


def test_gaps_of_a_busy_device_wait_for_at_most_twice_the_grace() -> None:
    disk = Disk()
    disk.take(1, 3)
    disk.commit(100.0)
    disk.take(5)
    disk.commit(100.1)
    disk.take(6)
    disk.commit(100.0 + GRACE_S)
    assert disk.missing() == 1, "the younger gap has its grace"

    disk.take(7)
    disk.commit(100.0 + 2 * GRACE_S)

    assert disk.missing() == 2


def test_a_reading_in_time_leaves_no_gap_and_a_late_one_closes_it() -> None:
    disk = Disk()
    disk.take(1, 3)
    disk.commit(100.0)
    disk.take(2, 5)
    disk.commit(100.1)
    disk.commit(100.0 + LATER_S)
    disk.commit(100.0 + 2 * LATER_S)
    assert disk.missing() == 1

    assert disk.take(4) == [False]
    disk.commit(900.0)

    assert disk.missing() == 0


def test_gaps_survive_a_restart_also_in_their_grace() -> None:
    disk = Disk()
    disk.take(1, 4)
    disk.commit(100.0)
    assert disk.missing() == 0

    disk.restart()
    disk.commit(7.0)

    assert disk.missing() == 2
    assert disk.take(4, 2) == [True, False]
    disk.commit(8.0)
    assert disk.missing() == 1


def test_copies_are_counted_over_restarts() -> None:
    disk = Disk()
    disk.take(1, 1, 2)
    disk.commit(0.0)
    disk.restart()
    assert disk.take(1, 2, 3) == [True, True, False]
    disk.commit(1.0)

    assert Boot.from_bytes(disk.kept["default", "d1", "b"]).duplicates == 3


def test_a_new_boot_leaves_the_old_one_as_it_was() -> None:
    disk = Disk()
    disk.take(1, 3)
    disk.take(1, 2, boot_id="c")
    disk.commit(0.0)
    disk.commit(LATER_S)

    assert (disk.missing("b"), disk.missing("c")) == (1, 0)


def test_a_device_that_counts_anew_is_believed_when_its_time_goes_on() -> None:
    boots = Boots({}.get)
    for number in range(3_000):
        boots.is_repeat(reading(number, time_ns=10_000 + number))
    boots.take_changes(0.0)

    assert boots.is_repeat(reading(5, time_ns=10_005)), "a second copy carries the old time"
    assert boots.is_repeat(reading(2_990, time_ns=50_000)), "close by it is a copy, whatever its time"
    assert boots.is_repeat(reading(0, time_ns=50_000, flags=SERVER_TIME)), "that time is not the device's"
    assert [boots.is_repeat(reading(n, time_ns=50_000 + n)) for n in (0, 1, 2)] == [False] * 3
    (change,) = boots.take_changes(0.0)
    assert (Boot.from_bytes(change.content).restarts, change.missing, change.duplicates) == (1, 0, 3)


def test_what_was_missing_before_a_device_counted_anew_stays_missing() -> None:
    boot = settled([1, 2, 5_000])

    boot.begin_again(1)

    assert (boot.missing(), boot.missing_spans(), boot.first) == (4_997, [], 1)


def test_boots_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MAX_BOOTS", 3)
    disk = Disk()

    for number in range(10):
        assert disk.take(1, boot_id=str(number)) == [False]
        disk.commit(0.0)

    assert len(disk.boots._known) == 3
    assert disk.take(1, boot_id="0") == [True], "read again from what was kept"


def test_ranges_in_memory_are_bounded_over_all_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MAX_RANGES_HELD", 50)
    disk = Disk()

    for number in range(30):
        disk.take(*range(0, 20, 2), boot_id=str(number))
        disk.commit(float(number))

    assert sum(len(boot.lows) for boot in disk.boots._known.values()) <= 50
    assert disk.boots._held == sum(len(boot.lows) for boot in disk.boots._known.values())
    assert disk.take(2, 3, boot_id="0") == [True, False]
    disk.commit(90.0)
    assert disk.missing("29") == 9


def test_a_forgotten_device_begins_anew() -> None:
    disk = Disk()
    disk.take(1, 3)
    disk.commit(0.0)

    disk.take(4)
    disk.kept.clear()
    disk.boots.forget({"d1": EVERYTHING})

    assert disk.boots.take_changes(LATER_S) == []
    assert disk.take(1) == [False]


def test_device_that_got_the_id_of_a_deleted_one_counts_for_itself() -> None:
    disk = Disk()

    old = [disk.boots.is_repeat(reading(number, born_ns=5)) for number in (1, 2, 4)]
    disk.commit(0.0)
    new = [disk.boots.is_repeat(reading(number, born_ns=9)) for number in (1, 2, 2)]
    late = disk.boots.is_repeat(reading(4, born_ns=5, received_ns=8))
    disk.commit(LATER_S)

    assert (old, new, late) == ([False] * 3, [False, False, True], False)
    kept = Boot.from_bytes(disk.kept["default", "d1", "b"])
    assert (kept.lows, kept.highs, kept.born_ns) == ([1], [2], 9)


def test_reading_let_in_under_the_birth_of_a_deleted_device_is_no_copy() -> None:
    """The gate had not heard yet that another device has the id."""
    boots = Boots({}.get, born_of=lambda reading: 9)
    boots.is_repeat(reading(1, born_ns=5, received_ns=6))

    stale = [boots.is_repeat(reading(number, born_ns=5, received_ns=10)) for number in (1, 2)]
    known = [boots.is_repeat(reading(number, born_ns=9, received_ns=11)) for number in (1, 2, 3)]

    assert (stale, known) == ([False, False], [True, True, False])


def test_boot_from_before_births_were_noted_goes_on() -> None:
    disk = Disk()
    disk.take(1, 2)

    assert disk.boots.is_repeat(reading(2, born_ns=9))
    disk.commit(0.0)
    assert Boot.from_bytes(disk.kept["default", "d1", "b"]).born_ns == 9


def test_only_the_boots_of_the_one_before_are_forgotten() -> None:
    disk = Disk()
    disk.boots.is_repeat(reading(1, "old", born_ns=5))
    disk.boots.is_repeat(reading(1, "new", born_ns=9))

    disk.boots.forget({"d1": 9})

    assert [change.key[2] for change in disk.boots.take_changes(0.0)] == ["new"]
