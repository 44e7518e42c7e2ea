"""Batches from spool to store: duplicates, refusals, poison, a store that is away, crashes in between."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import apsw
import msgspec
import pytest

from ingest.quarantine import Kept, Quarantine, Refused
from ingest.readings import Reading
from ingest.replay import decode_reading
from ingest.spool import frames, segments
from ingest.spool.reader import SpoolReader
from ingest.writer.delays import STORED
from ingest.writer.drain import PATIENCE_TURNS, Drain, SpoiledError
from ingest.writer.gaps import EVERYTHING, BootChange
from ingest.writer.state import WriterState, read_counters, read_tenant
from series.port import BatchRefused, Capabilities, Expired, Refusal, Term, WriteOutcome
from wire.errors import StoreUnavailable, Unavailable
from wire.points import REDELIVERED, SERVER_TIME, Point


class FakeStore:
    """A store in a dict; `fault` is called before each write."""

    capabilities = Capabilities()

    def __init__(self) -> None:
        self.points: dict[tuple[str, int], dict[str, object]] = {}
        self.batches: list[list[Point]] = []
        self.fault: Callable[[Sequence[Point]], None] = lambda points: None
        self.refuse: Callable[[Point], str | bool | None] = lambda point: False
        self.state = "ok"

    def write(self, points: Sequence[Point], *, timeout_s: float = 10.0) -> WriteOutcome:
        self.fault(points)
        self.batches.append(list(points))
        refused = []
        for index, point in enumerate(points):
            field = self.refuse(point)
            if field is not False:
                refused.append(Refusal(index, "type_conflict", "no", field))  # type: ignore[arg-type]
            if field is not None:
                kept = {name: value for name, value in point.fields.items() if name != field}
                self.points.setdefault((point.device, point.time_ns), {}).update(kept)
        whole = sum(refusal.field is None for refusal in refused)
        return WriteOutcome(len(points) - whole, refused)

    def expire(self, now_ns: int, kept: Iterable[Term] = ()) -> Iterator[Expired]:
        return iter(())

    def delete(self, device: str, *, tenant: str = "default") -> None: ...

    def health(self) -> str:
        return self.state

    def close(self) -> None: ...


class FakeRefuge:
    def __init__(self) -> None:
        self.kept: dict[str | None, Refused] = {}
        self.answer = "kept"

    def add(self, refused: Sequence[Refused]) -> list[Kept]:
        if self.answer == "kept":
            self.kept |= {each.message.key: each for each in refused}
        return [Kept(self.answer) for _ in refused]  # type: ignore[arg-type]


class Seen:
    def __init__(self) -> None:
        self.points: list[Point] = []

        self.boots: list[BootChange] = []

    def offer(self, points: Iterable[Reading]) -> None:
        self.points += points

    def note(self, boots: Sequence[BootChange]) -> None:
        self.boots += boots

    def forget(self, devices: Iterable[str]) -> None:
        self.boots = [boot for boot in self.boots if boot.key[1] not in set(devices)]


class Line:
    """Spool, state, store and drain on one folder; `restart` is what a crash leaves."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.log = segments.open_spool(data / "spool" / "json", limit_bytes=1 << 30, floor_bytes=0)
        self.store, self.refuge, self.seen = FakeStore(), FakeRefuge(), Seen()
        self.state = WriterState(data)
        self.drain = self._make_drain()

    def append(self, *readings: Reading) -> None:
        self.log.commit(list(frames.encode(readings)))

    def restart(self) -> None:
        self.state.close()
        self.state = WriterState(self.data)
        self.drain = self._make_drain()

    def run(self) -> None:
        while self.drain.step():
            pass

    def counters(self) -> dict[str, float]:
        return {name: value for name, value in read_counters(self.data).items() if value and name != "lag_s"}

    def close(self) -> None:
        self.log.close()
        self.state.close()

    def _make_drain(self) -> Drain:
        reader = SpoolReader(self.data / "spool", self.state.positions())
        return Drain(reader, self.state, self.store, self.refuge, self.seen)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.close()


def reading(number: int, device: str = "d", **members: object) -> Reading:
    return Reading(device, "telemetry", number, number, members.pop("fields", {"n": number}), **members)  # type: ignore[arg-type]


def test_readings_end_in_the_store_and_the_feed(line: Line) -> None:
    line.append(reading(1), reading(2))
    line.append(reading(3))

    line.run()

    assert line.store.points == {("d", n): {"n": n} for n in (1, 2, 3)}
    assert [point.time_ns for point in line.seen.points] == [1, 2, 3]
    assert line.counters() == {"stored": 3}


def test_duplicates_are_counted_and_not_written(line: Line) -> None:
    line.append(reading(1, boot_id="b", seq=1), reading(2))
    line.append(reading(9, boot_id="b", seq=1), reading(2))
    line.append(reading(3, flags=SERVER_TIME, delivery=5, content=77))
    again = reading(4, flags=SERVER_TIME | REDELIVERED, delivery=5, content=77)
    line.run()
    line.restart()
    line.append(again, reading(8, boot_id="b", seq=1))

    line.run()

    assert sorted(line.store.points) == [("d", 1), ("d", 2), ("d", 3)]
    assert line.counters() == {"stored": 3, "duplicates": 4}


def test_store_away_keeps_the_batch_and_its_order(line: Line) -> None:
    line.append(*(reading(n) for n in range(10)))
    line.store.fault = failing(StoreUnavailable("away"))
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            line.drain.step()
    line.append(*(reading(n) for n in range(10, 20)))
    assert line.drain.oldest_received_ns() == 0
    assert line.counters() == {"pending": 20}
    line.store.fault = lambda points: None

    line.run()

    assert [point.time_ns for batch in line.store.batches for point in batch] == list(range(20))
    assert line.counters() == {"stored": 20}
    assert line.drain.oldest_received_ns() is None


def test_crash_between_store_and_commit_counts_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.append(*(reading(n, boot_id="b", seq=n) for n in range(5)))
    monkeypatch.setattr(line.state, "commit", failing(OSError("killed here")))
    with pytest.raises(OSError, match="killed"):
        line.run()

    line.restart()
    line.run()

    assert len(line.store.batches) == 2
    assert len(line.store.points) == 5
    assert line.counters() == {"stored": 5}


def test_each_tenant_balances_wherever_the_writer_is_killed(line: Line) -> None:
    picked, sent, numbers = random.Random(11), Counter[str](), set[tuple[str, int]]()
    for _ in range(150):
        deed = picked.choice(["send", "send", "step", "step", "remember", "kill"])
        if deed == "send":
            tenant = picked.choice(["acme", "other"])
            own = [picked.randrange(300) for _ in range(picked.randint(1, 9))]
            line.append(*(reading(n, boot_id="b", seq=n, tenant=tenant) for n in own))
            sent[tenant] += len(own)
            numbers |= {(tenant, n) for n in own}
        else:
            {"step": line.drain.step, "remember": line.drain.finish, "kill": line.restart}[deed]()
        for tenant in ("acme", "other"):
            found = read_tenant(line.data, {}, tenant)
            assert sum(found.done) + found.pending == sent[tenant], deed
    line.run()

    for tenant in ("acme", "other"):
        found = read_tenant(line.data, {}, tenant)
        assert (found.pending, found.oldest_ns) == (0, None)
        assert found.done.stored == sum(owner == tenant for owner, _ in numbers)
    assert read_tenant(line.data, {}, "nobody").done == (0, 0)


def test_what_the_store_refuses_is_not_stored_of_its_tenant(line: Line) -> None:
    line.store.refuse = lambda point: None if point.tenant == "acme" and point.time_ns < 3 else False
    line.append(*(reading(n, tenant=tenant) for n in range(5) for tenant in ("acme", "other")))

    line.run()

    assert [read_tenant(line.data, {}, tenant).done.stored for tenant in ("acme", "other")] == [2, 5]
    assert len(line.refuge.kept) == 3


def test_turns_are_remembered_together_and_written_again_after_a_crash(line: Line) -> None:
    for turn in range(3):
        line.append(*(reading(10 * turn + n, boot_id="b", seq=10 * turn + n) for n in range(10)))
        assert line.drain.step() == 10
        if not turn:
            line.drain.finish()
    assert line.counters() == {"stored": 10, "pending": 20}

    line.restart()
    line.run()

    assert [len(batch) for batch in line.store.batches] == [10, 10, 10, 20]
    assert line.counters() == {"stored": 30}


def test_held_batch_is_not_remembered_as_seen(line: Line) -> None:
    line.append(*numbered(1))
    line.drain.step()
    line.append(*numbered(2))
    line.store.fault = failing(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        line.drain.step()
    line.drain.finish()
    line.store.fault = lambda points: None

    line.restart()
    line.run()

    assert line.counters() == {"stored": 2}


def test_batch_that_cannot_be_sifted_is_never_passed_over(line: Line) -> None:
    """Half of it may count as seen by then: going on, or remembering that, would lose what was acknowledged."""
    load_boot = line.state.load_boot
    line.append(*numbered(1, 2), reading(9, "d2", boot_id="b", seq=1))
    line.state.load_boot = failing_for("d2", load_boot)
    line.drain = line._make_drain()

    with pytest.raises(SpoiledError):
        line.drain.step()
    line.append(*numbered(3))
    line.state.load_boot = load_boot
    with pytest.raises(SpoiledError):
        line.drain.step()
    line.drain.finish()

    assert line.counters() == {"pending": 4}
    line.restart()
    line.run()
    assert line.counters() == {"stored": 4}


def failing_for(device: str, load: Callable[..., bytes | None]) -> Callable[..., bytes | None]:
    def load_or_fail(key: tuple[str, str, str]) -> bytes | None:
        if key[1] == device:
            raise apsw.IOError("the disk")
        return load(key)

    return load_or_fail


def test_turns_of_a_busy_writer_are_remembered_in_time(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.writer.drain.REMEMBER_S", 0.0)
    line.append(reading(1))
    line.drain.step()
    line.append(reading(2))
    line.drain.step()

    assert line.counters() == {"stored": 1, "pending": 1}


def test_damaged_mark_does_not_count_again(line: Line) -> None:
    line.append(*(reading(n) for n in range(5)))
    line.run()
    line.log.close()
    (line.log.folder / "mark").write_bytes(b"\xff" * 20)

    line.log = segments.open_spool(line.data / "spool" / "json", limit_bytes=1 << 30, floor_bytes=0)
    line.append(reading(5))
    line.restart()
    line.run()

    assert line.counters() == {"stored": 6}
    assert [len(batch) for batch in line.store.batches] == [5, 1]


@pytest.mark.parametrize("fails", ["store", "commit"])
def test_no_segment_goes_before_its_readings_are_remembered(
    line: Line, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    line.log.close()
    line.log = segments.open_spool(line.data / "spool" / "json", limit_bytes=8_192, floor_bytes=0)
    for number in range(0, 100, 10):  # in segments of 1 KiB
        line.append(*(reading(number + n) for n in range(10)))
    before = segments.first_numbers(line.log.folder)
    part, method = (line.store, "fault") if fails == "store" else (line.state, "commit")
    with monkeypatch.context() as patch:
        patch.setattr(part, method, failing(StoreUnavailable("away")))
        with pytest.raises(Unavailable):
            line.run()

    assert len(before) > 2
    assert segments.first_numbers(line.log.folder) == before
    line.restart()
    line.run()
    assert line.counters() == {"stored": 100}


def test_lost_memory_of_the_writer_leaves_the_ledger_balanced(line: Line) -> None:
    line.log.close()
    line.log = segments.open_spool(line.data / "spool" / "json", limit_bytes=8_192, floor_bytes=0)
    for number in range(0, 100, 10):  # in segments of 1 KiB: the first are deleted
        line.append(*(reading(number + n) for n in range(10)))
        line.run()
    assert segments.first_numbers(line.log.folder)[0] > 0
    line.state.close()
    for path in line.data.glob("writer.db*"):
        path.unlink()
    line.state = WriterState(line.data)

    line.restart()
    line.run()

    assert line.counters() == {"stored": 100}
    assert segments.accepted_total(line.data / "spool") == 100


def test_failed_commit_is_repeated_without_losing_or_dropping(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.append(*(reading(n, boot_id="b", seq=n) for n in range(5)))
    with monkeypatch.context() as patch:
        patch.setattr(line.state, "commit", failing(OSError("disk full")))
        with pytest.raises(OSError, match="full"):
            line.run()

    line.run()

    assert line.counters() == {"stored": 5}
    assert len(line.store.batches) == 1


def test_refused_points_and_fields_go_to_quarantine(line: Line) -> None:
    line.append(reading(1), reading(2, fields={"n": 2, "bad": "x"}, boot_id="b", seq=9), reading(3))
    line.store.refuse = lambda point: {2: "bad", 3: None}.get(point.time_ns, False)

    line.run()

    assert line.counters() == {"stored": 2, "store_refused": 1}
    assert [(each.items[0].field, each.items[0].is_whole) for each in line.refuge.kept.values()] == [
        ("bad", False),
        (None, True),
    ]
    kept = decode_reading(next(iter(line.refuge.kept.values())).message.content)
    assert kept == reading(2, fields={"n": 2, "bad": "x"}), "without boot_id and seq: a replay must not be a duplicate"
    assert [point.time_ns for point in line.seen.points] == [1]


def test_refused_point_is_quarantined_once_although_written_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.append(reading(0), reading(1))
    line.store.refuse = lambda point: None
    monkeypatch.setattr(line.state, "commit", failing(OSError("killed here")))
    with pytest.raises(OSError, match="killed"):
        line.run()
    line.restart()

    line.run()
    line.append(reading(1))
    line.run()

    assert len(line.refuge.kept) == 3, "the same point accepted once more is another refusal"


def test_replayed_point_is_written_although_it_was_seen(line: Line) -> None:
    line.append(reading(1))
    line.store.refuse = lambda point: None
    line.run()
    line.store.refuse = lambda point: False

    line.append(reading(1))
    line.run()

    assert line.store.points == {("d", 1): {"n": 1}}
    assert line.counters() == {"stored": 1, "store_refused": 1}


def test_full_quarantine_holds_the_batch(line: Line) -> None:
    line.append(reading(1), reading(2))
    line.store.refuse = lambda point: None if point.time_ns == 1 else False
    line.refuge.answer = "full"
    with pytest.raises(Unavailable, match="quarantine is full"):
        line.drain.step()
    line.refuge.answer = "kept"

    line.run()

    assert line.counters() == {"stored": 1, "store_refused": 1}
    assert len(line.store.batches) == 1


def test_full_quarantine_of_one_device_does_not_stop_the_others(line: Line) -> None:
    line.append(reading(1), reading(2, "other"))
    line.store.refuse = lambda point: None if point.device == "d" else False
    line.refuge.answer = "device_full"

    line.run()

    assert line.counters() == {"stored": 1, "store_refused": 1}


@pytest.mark.parametrize("poison", [{0}, {99}, {13, 14, 70}])
def test_poison_is_set_apart_and_the_rest_is_stored(line: Line, poison: set[int]) -> None:
    line.append(*(reading(n) for n in range(100)))

    def fault(points: Sequence[Point]) -> None:
        if poison & {point.time_ns for point in points}:
            raise KeyError("odd")

    line.store.fault = fault
    for _ in range(PATIENCE_TURNS - 1):
        with pytest.raises(StoreUnavailable):
            line.run()
    assert not line.refuge.kept
    line.run()

    assert {time_ns for _, time_ns in line.store.points} == set(range(100)) - poison
    assert {msgspec.json.decode(each.message.content)["time_ns"] for each in line.refuge.kept.values()} == poison
    assert line.counters() == {"stored": 100 - len(poison), "store_refused": len(poison)}


def refuse_batches(line: Line, bad: set[int]) -> list[int]:
    """Let the store say only that a batch is refused; give the sizes of what it is handed."""
    sizes: list[int] = []

    def fault(points: Sequence[Point]) -> None:
        sizes.append(len(points))
        if bad & {point.time_ns for point in points}:
            raise BatchRefused("n is a string here")

    line.store.fault = fault
    return sizes


@pytest.mark.parametrize("bad", [{0}, {57}, {13, 14, 70}, set(range(100))])
def test_store_that_refuses_batches_costs_exactly_the_bad_points(line: Line, bad: set[int]) -> None:
    line.append(*(reading(n) for n in range(100)))
    sizes = refuse_batches(line, bad)

    line.run()

    assert {time_ns for _, time_ns in line.store.points} == set(range(100)) - bad
    kept = list(line.refuge.kept.values())
    assert {msgspec.json.decode(each.message.content)["time_ns"] for each in kept} == bad
    assert {(each.items[0].code, each.items[0].detail) for each in kept} == {("store_refused", "n is a string here")}
    stored = {"stored": 100 - len(bad)} if len(bad) < 100 else {}
    assert line.counters() == stored | {"store_refused": len(bad)}
    assert len(sizes) <= 1 + 2 * 7 * len(bad)


def test_store_that_goes_away_while_a_batch_is_divided_loses_nothing(line: Line) -> None:
    line.append(*(reading(n) for n in range(100)))
    sizes = refuse_batches(line, {99})
    divide = line.store.fault

    def fault(points: Sequence[Point]) -> None:
        if len(sizes) == 2:
            sizes.append(0)
            raise StoreUnavailable("away")
        divide(points)

    line.store.fault = fault
    with pytest.raises(StoreUnavailable):
        line.run()
    line.run()

    assert len(line.store.points) == 99
    assert len(line.refuge.kept) == 1
    assert line.counters() == {"stored": 99, "store_refused": 1}


def test_lone_reading_outlives_a_passing_failure_of_the_engine(line: Line) -> None:
    line.append(reading(1))
    line.store.fault = failing(KeyError("passing"))
    with pytest.raises(StoreUnavailable):
        line.run()
    line.store.fault = lambda points: None

    line.run()

    assert line.counters() == {"stored": 1}
    assert not line.refuge.kept


def test_engine_that_fails_on_everything_is_away_not_poisoned(line: Line) -> None:
    line.append(*(reading(n) for n in range(10)))
    line.store.fault = failing(KeyError("broken"))
    for _ in range(PATIENCE_TURNS + 2):
        with pytest.raises(StoreUnavailable):
            line.drain.step()
    line.store.fault, line.store.state = lambda points: None, "ok"

    line.run()

    assert line.counters() == {"stored": 10}
    assert not line.refuge.kept


def test_damage_is_counted_in_the_ledger(line: Line) -> None:
    line.append(reading(1))
    line.append(reading(2), reading(3))
    path = segments.segment_path(line.log.folder, 0)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    line.run()

    assert line.counters() == {"stored": 1, "damaged": 2}


def test_random_crashes_lose_and_repeat_nothing(tmp_path: Path) -> None:
    chance = random.Random(11)
    line, sent = Line(tmp_path), 0
    for _ in range(150):
        for _ in range(chance.randrange(3)):
            line.append(*(reading(sent + n, boot_id="b", seq=sent + n) for n in range(7)))
            sent += 7
        line.store.fault = failing(StoreUnavailable("away")) if chance.random() < 0.3 else lambda points: None
        with suppress(StoreUnavailable):
            line.drain.step()
        if chance.random() < 0.2:
            line.restart()
    line.store.fault = lambda points: None
    line.run()

    assert sorted(time_ns for _, time_ns in line.store.points) == list(range(sent))
    assert line.counters() == {"stored": sent}
    assert segments.accepted_total(tmp_path / "spool") == sent
    line.close()


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def numbered(*numbers: int) -> list[Reading]:
    return [Reading("d1", "telemetry", n + 1, n + 1, {"t": n}, boot_id="b", seq=n) for n in numbers]


def missing(line: Line) -> float:
    return read_counters(line.data)["missing"]


def test_a_gap_is_kept_though_nothing_more_comes(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.writer.gaps.GRACE_S", 0.0)
    line.append(*numbered(1, 2, 6))

    line.run()

    assert missing(line) == 3
    line.append(*numbered(4))
    line.run()
    assert missing(line) == 2


def test_a_gap_in_its_grace_is_missing_after_a_crash(line: Line) -> None:
    line.append(*numbered(1, 3))
    line.run()
    assert missing(line) == 0

    line.restart()
    line.run()

    assert missing(line) == 1


def test_a_failed_commit_of_gaps_is_made_up_by_the_next(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.writer.gaps.GRACE_S", 0.0)
    line.append(*numbered(1, 3))
    line.drain.step()
    with monkeypatch.context() as patch:
        patch.setattr(line.state, "commit", failing(Unavailable("disk full")))
        with pytest.raises(Unavailable):
            line.drain.step()

    line.append(*numbered(4))
    line.run()

    assert missing(line) == 1


def test_delays_are_counted_by_class_and_not_of_copies(line: Line) -> None:
    before = {kind: recent.readings for kind, recent in STORED.recent().items()}
    line.append(reading(1, protocol="delay-test"), reading(1, protocol="delay-test"))
    line.append(reading(2, protocol="delay-test", delivery=0), reading(3, protocol="delay-test", delivery=7))

    line.run()

    found = {kind: recent.readings for kind, recent in STORED.recent().items() if kind not in before}
    assert found == {"delay-test/http": 1, "delay-test/mqtt": 2}


def test_numbers_are_told_after_they_are_durable_and_not_before(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.append(*numbered(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(line.state, "commit", failing(Unavailable("disk full")))
        with pytest.raises(Unavailable):
            line.run()
    assert line.seen.boots == []

    line.run()

    assert [change.key[2] for change in line.seen.boots] == ["b"]


def test_a_deleted_device_begins_anew(line: Line) -> None:
    line.append(*numbered(1, 2))
    line.run()

    line.drain.forget_devices({"d1": EVERYTHING})
    assert not line.drain.has_forgotten_all
    line.append(*numbered(1))
    line.run()

    assert line.drain.has_forgotten_all
    assert line.counters() == {"stored": 3}


def test_real_quarantine_takes_what_the_store_refuses(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine.db", limit_bytes=1 << 26)
    line = Line(tmp_path)
    line.refuge = quarantine  # type: ignore[assignment]
    line.restart()
    line.append(reading(1))
    line.store.refuse = lambda point: None

    line.run()

    assert quarantine.totals()["quarantined"] == 1
    line.close()
    quarantine.close()


def test_segment_stays_until_the_store_has_all_of_it(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.log.close()
    line.log = segments.open_spool(tmp_path / "spool" / "json", limit_bytes=8_000, floor_bytes=0)
    for number in range(60):
        line.append(Reading("d1", "telemetry", number, number, {"n": number}))
    firsts = segments.first_numbers(line.log.folder)
    assert len(firsts) > 2

    def away(_points: Sequence[Point]) -> None:
        raise StoreUnavailable("away")

    line.store.fault = away
    with pytest.raises(StoreUnavailable):
        line.drain.step()
    assert segments.first_numbers(line.log.folder) == firsts

    line.restart()
    line.store.fault = lambda points: None
    line.run()
    assert len(line.store.points) == 60
    assert segments.first_numbers(line.log.folder) == firsts[-1:]
    line.close()
