"""writer.db: one commit a batch, counters for other processes, bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.reader import Position, SpoolReader
from ingest.writer.dedupe import WINDOW, BootChange, Ranges
from ingest.writer.state import KEPT_BOOTS, Progress, WriterState, read_counters
from wire import clock


@pytest.fixture
def state(tmp_path: Path):
    made = WriterState(tmp_path)
    yield made
    made.close()


def boot(name: str, *numbers: int, is_new: bool = True) -> BootChange:
    ranges = Ranges()
    for number in numbers:
        ranges.add(number)
    return BootChange(("default", "d1", name), ranges.to_bytes(), is_new)


def test_a_commit_is_there_after_reopening(tmp_path: Path, state: WriterState) -> None:
    place = Position("ab", 12, 3, 400)
    state.commit(
        Progress({"json/0": place}, {"stored": 5, "duplicates": 2}, [boot("b", 1, 2)], [(7, -5, 99, True)], 41), 1
    )
    state.commit(Progress({}, {"stored": 3}), 2)

    again = WriterState(tmp_path)

    assert again.positions() == {"json/0": place}
    assert again.load_boot(("default", "d1", "b")) == boot("b", 1, 2).ranges
    assert again.load_boot(("default", "d1", "c")) is None
    assert again.deliveries() == ([(7, -5, 99, True)], 41)
    assert (read_counters(tmp_path)["stored"], read_counters(tmp_path)["duplicates"]) == (8, 2)
    again.close()


def test_a_failing_commit_changes_nothing(tmp_path: Path, state: WriterState) -> None:
    odd = Position("ab", 2**70, 0, 0)

    with pytest.raises(OverflowError):
        state.commit(Progress({"a": Position("ab", 1), "json/0": odd}, {"stored": 5}), 1)

    assert state.positions() == {}
    assert read_counters(tmp_path)["stored"] == 0


def test_boots_of_a_device_are_bounded_and_grow_old(state: WriterState) -> None:
    for number in range(KEPT_BOOTS + 5):
        state.commit(Progress(boots=[boot(f"b{number}", 1)]), number)

    assert state.load_boot(("default", "d1", "b4")) is None
    assert state.load_boot(("default", "d1", "b5")) is not None
    state.forget_boots(10)
    assert state.load_boot(("default", "d1", "b9")) is None
    assert state.load_boot(("default", "d1", "b10")) is not None


def test_deliveries_are_bounded(state: WriterState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.writer.state.WINDOW", 10)
    for number in range(1, 31):
        state.commit(Progress(deliveries=[(number, 0, 0, False)], delivery_number=number), number)

    rows, last = state.deliveries()

    assert last == 30
    assert [row[0] for row in rows] == list(range(21, 31))


def test_counters_without_a_writer_show_what_waits(tmp_path: Path) -> None:
    assert read_counters(tmp_path) == {
        "stored": 0, "duplicates": 0, "store_refused": 0, "damaged": 0, "pending": 0, "lag_s": 0.0,
    }  # fmt: skip
    log = segments.open_spool(tmp_path / "spool" / "json", limit_bytes=1 << 30, floor_bytes=0)
    received_ns = clock.now_ns() - 90 * clock.NS_PER_S
    log.commit(
        list(frames.encode([Reading("d", "m", 1, received_ns, {"a": 1}), Reading("d", "m", 2, received_ns, {"a": 1})]))
    )

    found = read_counters(tmp_path)

    assert found["pending"] == 2
    assert 90 <= found["lag_s"] < 100
    log.close()


def test_lag_ends_when_the_position_is_committed(tmp_path: Path, state: WriterState) -> None:
    log = segments.open_spool(tmp_path / "spool" / "json", limit_bytes=1 << 30, floor_bytes=0)
    log.commit(list(frames.encode([Reading("d", "m", 1, 1, {"a": 1})])))
    taken = SpoolReader(tmp_path / "spool", {}).take(10)
    before = read_counters(tmp_path)

    state.commit(Progress(taken.positions, {"stored": 1}), 1)
    after = read_counters(tmp_path)

    assert (before["pending"], after["pending"]) == (1, 0)
    assert before["lag_s"] > 1
    assert (after["lag_s"], after["stored"]) == (0.0, 1)
    log.close()


def test_count_of_deliveries_is_kept_without_new_rows(state: WriterState) -> None:
    """Timed messages use up message ids too; a restart must not make old deliveries young again."""
    state.commit(Progress(deliveries=[(7, -5, 99, False)], delivery_number=1), 1)
    state.commit(Progress(delivery_number=1), 2)
    assert state.deliveries() == ([(7, -5, 99, False)], 1)

    state.commit(Progress(delivery_number=WINDOW + 1), 3)
    assert state.deliveries() == ([], WINDOW + 1)
