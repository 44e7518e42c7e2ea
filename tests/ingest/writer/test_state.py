"""writer.db: one commit a batch, counters for other processes, bounds."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chassis.sqlite import Database
from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.reader import Position, SpoolReader
from ingest.writer import state as state_module
from ingest.writer.dedupe import WINDOW
from ingest.writer.gaps import EVERYTHING, Boot, BootChange
from ingest.writer.state import (
    _SCHEMA,
    FILE,
    KEPT_BOOTS,
    Progress,
    TenantCount,
    WriterState,
    read_boots,
    read_counters,
    read_tenant,
)
from wire import clock


@pytest.fixture
def state(tmp_path: Path):
    made = WriterState(tmp_path)
    yield made
    made.close()


def boot(name: str, *numbers: int, seen_ns: int = 0, device: str = "d1", is_new: bool = True) -> BootChange:
    made = Boot(seen_ns=seen_ns)
    repeats = sum(not made.add(number) for number in numbers)
    made.settle(2**63)
    return BootChange(("default", device, name), made.to_bytes(), is_new, made.missing(), repeats, True, seen_ns)


def test_a_commit_is_there_after_reopening(tmp_path: Path, state: WriterState) -> None:
    place = Position("ab", 12, 3, 400)
    state.commit(
        Progress({"json/0": place}, {"stored": 5, "duplicates": 2}, [boot("b", 1, 2)], [(7, -5, 99, True)], 41)
    )
    state.commit(Progress({}, {"stored": 3}))

    again = WriterState(tmp_path)

    assert again.positions() == {"json/0": place}
    assert again.load_boot(("default", "d1", "b")) == boot("b", 1, 2).content
    assert again.load_boot(("default", "d1", "c")) is None
    assert again.deliveries() == ([(7, -5, 99, True)], 41)
    assert (read_counters(tmp_path)["stored"], read_counters(tmp_path)["duplicates"]) == (8, 2)
    again.close()


def test_a_failing_commit_changes_nothing(tmp_path: Path, state: WriterState) -> None:
    odd = Position("ab", 2**70, 0, 0)

    with pytest.raises(OverflowError):
        state.commit(Progress({"a": Position("ab", 1), "json/0": odd}, {"stored": 5}))

    assert state.positions() == {}
    assert read_counters(tmp_path)["stored"] == 0


def test_boots_of_a_device_are_bounded_and_grow_old(tmp_path: Path, state: WriterState) -> None:
    for number in range(KEPT_BOOTS + 5):
        state.commit(Progress(boots=[boot(f"b{number}", 1, 3, 3, seen_ns=number)]))

    assert state.load_boot(("default", "d1", "b4")) is None
    assert state.load_boot(("default", "d1", "b5")) is not None
    found = read_boots(tmp_path, "d1", "default")
    assert [account.boot_id for account in found.boots] == [f"b{number}" for number in range(20, 4, -1)]
    assert found[1:] == (5, 5, 5), "what is no longer kept stays counted"
    state.forget_boots(10)
    assert state.load_boot(("default", "d1", "b9")) is None
    assert state.load_boot(("default", "d1", "b10")) is not None


def test_deliveries_are_bounded(state: WriterState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.writer.state.WINDOW", 10)
    for number in range(1, 31):
        state.commit(Progress(deliveries=[(number, 0, 0, False)], delivery_number=number))

    rows, last = state.deliveries()

    assert last == 30
    assert [row[0] for row in rows] == list(range(21, 31))


def test_counters_without_a_writer_show_what_waits(tmp_path: Path) -> None:
    assert read_counters(tmp_path) == {
        "stored": 0, "duplicates": 0, "store_refused": 0, "damaged": 0, "pending": 0, "lag_s": 0.0,
        "missing": 0, "devices_with_gaps": 0,
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

    state.commit(Progress(taken.positions, {"stored": 1}))
    after = read_counters(tmp_path)

    assert (before["pending"], after["pending"]) == (1, 0)
    assert before["lag_s"] > 1
    assert (after["lag_s"], after["stored"]) == (0.0, 1)
    log.close()


def test_count_of_deliveries_is_kept_without_new_rows(state: WriterState) -> None:
    """Timed messages use up message ids too; a restart must not make old deliveries young again."""
    state.commit(Progress(deliveries=[(7, -5, 99, False)], delivery_number=1))
    state.commit(Progress(delivery_number=1))
    assert state.deliveries() == ([(7, -5, 99, False)], 1)

    state.commit(Progress(delivery_number=WINDOW + 1))
    assert state.deliveries() == ([], WINDOW + 1)


def test_gaps_are_counted_for_other_processes(tmp_path: Path, state: WriterState) -> None:
    state.commit(Progress(boots=[boot("a", 1, 4), boot("b", 1, 3), boot("a", 1, 2, device="d2")]))

    found = read_counters(tmp_path)

    assert (found["missing"], found["devices_with_gaps"]) == (3, 1)
    assert state.gaps() == (1, 3)
    state.commit(Progress(boots=[boot("a", 1, 2, 3, 4, is_new=False), boot("b", 1, 2, 3, is_new=False)]))
    assert state.gaps() == (0, 0)


def test_a_device_that_is_no_more_is_forgotten(tmp_path: Path, state: WriterState) -> None:
    state.commit(Progress(boots=[boot("a", 1, 4), boot("a", 1, 4, device="d2")]))

    state.forget_devices({"d1": EVERYTHING})

    assert read_boots(tmp_path, "d1", "default").boots == []
    assert [account.boot_id for account in read_boots(tmp_path, "d2", "default").boots] == ["a"]


def test_a_file_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    old = Database(tmp_path / FILE, schema=_SCHEMA[:4])
    with old.write() as connection:
        kept = msgspec.msgpack.encode(([1, 5], [3, 9]))
        connection.execute("INSERT INTO boots VALUES ('default', 'd1', 'b', ?, 7)", (kept,))
        connection.execute("INSERT INTO counters VALUES ('stored', 3)")
    old.close()
    assert (read_counters(tmp_path)["stored"], read_boots(tmp_path, "d1", "default").boots) == (3, [])

    state = WriterState(tmp_path)

    assert state.unsettled_boots() == [("default", "d1", "b")]
    (account,) = read_boots(tmp_path, "d1", "default").boots
    assert (account.boot_id, account.seen_ns, account.boot.highs) == ("b", 7, [3, 9])
    state.close()


def test_other_tenants_see_nothing(tmp_path: Path, state: WriterState) -> None:
    state.commit(Progress(boots=[boot("a", 1, 4)]))

    assert read_boots(tmp_path, "d1", "other").boots == []


def test_tenant_has_its_own_counts_and_gaps(tmp_path: Path, state: WriterState) -> None:
    gap = boot("b", 1, 4)
    theirs = gap._replace(key=("theirs", "d1", "b"))
    state.commit(Progress(boots=[gap, theirs], tenants={"mine": TenantCount(3, 1), "theirs": TenantCount(9, 9)}))
    state.commit(Progress(tenants={"mine": TenantCount(2, 0)}))

    mine, theirs = read_tenant(tmp_path, {}, "mine"), read_tenant(tmp_path, {}, "theirs")

    assert (mine.done, mine.missing, mine.devices_with_gaps) == ((5, 1), 0, 0)
    assert (theirs.done, theirs.missing, theirs.devices_with_gaps) == ((9, 9), 2, 1)
    assert mine.since_ns
    assert abs(mine.since_ns - clock.now_ns()) < 3600 * clock.NS_PER_S


def test_tenant_before_the_writer_counts_by_tenant_has_what_waits(tmp_path: Path) -> None:
    log = segments.open_spool(tmp_path / "spool" / "json", limit_bytes=1 << 30, floor_bytes=0)
    log.commit(list(frames.encode([Reading("d", "m", 1, 7, {"n": 1}, tenant="mine")])))
    assert read_tenant(tmp_path, {}, "mine")[:] == ((0, 0), None, 0, 0, 1, 7, True)

    Database(tmp_path / FILE, schema=_SCHEMA[:10]).close()
    assert read_tenant(tmp_path, {}, "mine")[:] == ((0, 0), None, 0, 0, 1, 7, True)
    log.close()


def test_tenant_is_counted_again_when_the_writer_went_on_meanwhile(
    tmp_path: Path, state: WriterState, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [None, {}, None, None, None]
    monkeypatch.setattr(state_module, "census", lambda root, positions, counted: answers.pop(0))

    assert [read_tenant(tmp_path, {}, "mine").is_known for _ in range(2)] == [True, False]
    assert answers == []
