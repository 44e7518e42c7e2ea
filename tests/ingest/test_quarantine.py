"""The quarantine file: what it keeps, how it counts, how it frees."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from ingest.quarantine import HEAD_BYTES, UNREADABLE_BYTES, Item, Quarantine, RawMessage, Refused, Selection
from wire.errors import NotFound

T = 1_772_700_000_000_000_000
T_ = TypeVar("T_")


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    made = Quarantine(tmp_path / "quarantine.db", limit_bytes=1024**2)
    yield made
    made.close()


def refused(content: bytes = b"{", device: str = "d1", items: int = 1, **members) -> Refused:
    message = RawMessage(device, "json", "http", content, T, **members)
    return Refused(message, [Item(number, "bad_time", "no time") for number in range(items)])


def test_entry_comes_back_as_it_was_kept(quarantine) -> None:
    message = RawMessage("d1", "json", "mqtt", b"\x00\xff", T, "devices/d1/telemetry", type="g", type_version=3)
    [kept] = quarantine.add([Refused(message, [Item(5, "out_of_range", "too hot", "temp", is_whole=False)])])

    entry = quarantine.get(kept.ids[0])

    assert (entry.device, entry.protocol, entry.transport, entry.source) == (
        "d1",
        "json",
        "mqtt",
        "devices/d1/telemetry",
    )
    assert (entry.type, entry.type_version, entry.code, entry.detail) == ("g", 3, "out_of_range", "too hot")
    assert (entry.record, entry.field, entry.is_whole, entry.received_ns) == (5, "temp", False, T)
    assert (entry.raw, entry.raw_bytes, entry.replayed_ns) == (b"\x00\xff", 2, None)


def test_large_message_is_kept_whole_and_once(quarantine) -> None:
    content = b"0123456789" * 50_000
    [kept] = quarantine.add([refused(content, items=3)])

    assert [quarantine.get(id_).raw for id_ in kept.ids] == [content] * 3
    assert quarantine.totals()["bytes"] < len(content)


def test_only_the_head_of_an_unreadable_message_is_kept(quarantine) -> None:
    [kept] = quarantine.add([refused(b"x" * 10_000, is_readable=False)])

    entry = quarantine.get(kept.ids[0])
    assert (len(entry.raw or b""), entry.raw_bytes) == (UNREADABLE_BYTES, 10_000)


def test_bytes_go_with_the_last_entry_replayed(quarantine) -> None:
    [kept] = quarantine.add([refused(items=2)])
    quarantine.mark_replayed(kept.ids[:1], T)
    between = quarantine.get(kept.ids[0]).raw
    quarantine.mark_replayed(kept.ids[1:], T)

    assert between == b"{"
    assert quarantine.get(kept.ids[0]).raw is None
    assert quarantine.totals() == {"quarantined": 0, "refused": 0, "pruned": 0, "bytes": 0}


def test_marking_twice_counts_once(quarantine) -> None:
    [kept] = quarantine.add([refused(items=2)])
    quarantine.mark_replayed([kept.ids[0], kept.ids[0]], T)
    quarantine.mark_replayed([kept.ids[0]], T)

    assert quarantine.totals()["quarantined"] == 1


def test_same_key_is_kept_once(quarantine) -> None:
    quarantine.add([refused(key="slot/1")])
    quarantine.add([refused(key="slot/1")])

    assert quarantine.totals()["quarantined"] == 1


def test_undo_leaves_nothing(quarantine) -> None:
    [kept] = quarantine.add([refused(items=3)])
    quarantine.undo(kept.ids)

    assert quarantine.page(Selection(state="all")) == []
    assert quarantine.totals() == {"quarantined": 0, "refused": 0, "pruned": 0, "bytes": 0}


def test_page_is_newest_first_and_selected(quarantine) -> None:
    quarantine.add([refused(device="d1"), refused(device="d2"), refused(device="d1")])

    assert [entry.id for entry in quarantine.page(Selection())] == [3, 2, 1]
    assert [entry.id for entry in quarantine.page(Selection(device="d1"), before=3)] == [1]
    assert quarantine.page(Selection(code="bad_name")) == []
    assert quarantine.page(Selection(protocol="senml")) == []
    assert quarantine.page(Selection(tenant="other")) == []


def test_entry_of_another_tenant_is_not_found(quarantine) -> None:
    [kept] = quarantine.add([refused()])

    with pytest.raises(NotFound):
        quarantine.get(kept.ids[0], tenant="other")


def test_counts_survive_reopening(tmp_path) -> None:
    first = Quarantine(tmp_path / "q.db", limit_bytes=1024**2)
    first.add([refused()])
    first.count_refused({"": 4, "a": 1})
    first.close()
    second = Quarantine(tmp_path / "q.db", limit_bytes=1024**2)

    assert second.totals()["quarantined"] == 1
    assert second.totals()["refused"] == 5
    assert second.totals_of("a") == (0, 1)
    assert second.count_by_code("d1") == {"bad_time": 1}
    second.close()


def test_two_services_add_at_once(tmp_path) -> None:
    opened = [Quarantine(tmp_path / "q.db", limit_bytes=1024**2) for _ in range(2)]

    def add(mine: Quarantine) -> None:
        for _ in range(50):
            mine.add([refused()])

    threads = [threading.Thread(target=add, args=(each,)) for each in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert opened[0].totals()["quarantined"] == 100
    for each in opened:
        each.close()


def test_discarded_entries_count_as_refused(quarantine) -> None:
    [kept] = quarantine.add([refused(items=2)])

    assert quarantine.discard(kept.ids, tenant="other") == 0
    assert quarantine.discard([*kept.ids, 4711]) == 2
    assert quarantine.totals() == {"quarantined": 0, "refused": 2, "pruned": 0, "bytes": 0}
    assert quarantine.discard(kept.ids) == 0


def test_what_was_acknowledged_is_kept_over_the_devices_share(tmp_path) -> None:
    small = Quarantine(tmp_path / "small.db", limit_bytes=8 * 1024)

    assert [small.add([refused()])[0].state for _ in range(2)] == ["device_full"] * 2
    assert small.add([refused(key="slot/1")])[0].state == "kept"
    small.close()


def test_page_of_one_large_message_holds_heads_only(quarantine) -> None:
    content = b"0" * 8_000_000
    quarantine.add([refused(content, items=100)])

    page, peak = measured(lambda: quarantine.page(Selection(), limit=1_000))

    assert [(entry.raw, entry.raw_bytes) for entry in page] == [(content[:HEAD_BYTES], len(content))] * 100
    assert peak < 30_000_000


def test_head_of_bytes_that_do_not_compress_is_complete(quarantine) -> None:
    content = random.Random(1).randbytes(40_000)
    quarantine.add([refused(content)])

    assert [entry.raw for entry in quarantine.page(Selection())] == [content[:HEAD_BYTES]]


def measured(work: Callable[[], T_]) -> tuple[T_, int]:
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_entries_are_found_by_type_version_and_time(quarantine) -> None:
    for version, second in ((1, 0), (2, 1), (2, 2)):
        raw = RawMessage("d1", "json", "http", b"{", T + second * 10**9, type="g", type_version=version)
        quarantine.add([Refused(raw, [Item(0, "bad_time", "no time")])])

    def found(**wanted) -> list[int]:
        return [entry.id for entry in quarantine.page(Selection(**wanted))]

    assert found(type="g", type_version=2) == [3, 2]
    assert found(type="other") == []
    assert found(start_ns=T + 10**9, end_ns=T + 2 * 10**9) == [2]
    assert found(start_ns=T + 2 * 10**9 + 1) == []


def test_quota_of_entries_says_later_and_drops_nothing(tmp_path) -> None:
    small = Quarantine(tmp_path / "small.db", limit_bytes=1 << 30, limit_entries=32)  # two of each device

    states = [small.add([refused(device=f"d{number // 3}")])[0].state for number in range(6)]
    filled = [small.add([refused(device=f"e{number}")])[0].state for number in range(30)]

    assert states == ["kept", "kept", "device_full"] * 2
    assert filled == ["kept"] * 28 + ["full"] * 2
    assert small.totals()["quarantined"] == 32
    small.close()


def test_quota_is_of_each_tenant(tmp_path) -> None:
    small = Quarantine(tmp_path / "small.db", limit_bytes=1 << 30, limit_entries=16)
    for number in range(16):
        small.add([refused(device=f"d{number}")])

    assert small.add([refused(device="more")])[0].state == "full"
    assert small.add([refused(device="more", tenant="other")])[0].state == "kept"
    small.close()


def test_what_waits_too_long_is_counted_as_refused(quarantine) -> None:
    for second in range(3):
        quarantine.add([refused(device=f"d{second}", items=2)])
    late = Refused(RawMessage("late", "json", "http", b"{", T + 10), [Item(0, "bad_time", "no time")])
    quarantine.add([late])

    assert quarantine.prune(waiting_before_ns=None, replayed_before_ns=0) == 0
    assert quarantine.prune(waiting_before_ns=T + 10, replayed_before_ns=0) == 6

    totals = quarantine.totals()
    assert (totals["quarantined"], totals["refused"], totals["pruned"]) == (1, 6, 6)
    assert [entry.device for entry in quarantine.page(Selection())] == ["late"]
    assert quarantine.count_by_code("d0") == {}


def test_each_tenant_has_its_own_totals(quarantine) -> None:
    [mine] = quarantine.add([refused(items=3, tenant="mine")])
    quarantine.add([refused(items=2, tenant="theirs"), refused(device="d9", tenant="theirs")])
    assert [quarantine.totals_of(each) for each in ("mine", "theirs", "nobody")] == [(3, 0), (3, 0), (0, 0)]

    quarantine.count_refused({"mine": 10, "": 5})
    quarantine.discard(mine.ids[:1], tenant="mine")
    quarantine.erase("d9", tenant="theirs")
    assert [quarantine.totals_of(each) for each in ("mine", "theirs")] == [(2, 11), (2, 1)]

    quarantine.mark_replayed(mine.ids[1:2], T)
    quarantine.prune(waiting_before_ns=T + 1, replayed_before_ns=0)
    assert [quarantine.totals_of(each) for each in ("mine", "theirs", "")] == [(0, 12), (0, 3), (0, 0)]
    assert quarantine.totals()["refused"] == 20


def test_what_was_replayed_is_forgotten_after_its_age(quarantine) -> None:
    [kept] = quarantine.add([refused(items=3)])
    quarantine.mark_replayed(kept.ids[:2], T)

    quarantine.prune(waiting_before_ns=None, replayed_before_ns=T)
    before = quarantine.page(Selection(state="all"))
    quarantine.prune(waiting_before_ns=None, replayed_before_ns=T + 1)

    assert len(before) == 3
    assert [entry.id for entry in quarantine.page(Selection(state="all"))] == [kept.ids[2]]
    assert quarantine.get(kept.ids[2]).raw == b"{"
    quarantine.mark_replayed(kept.ids[2:], T)
    quarantine.prune(waiting_before_ns=None, replayed_before_ns=T + 1)
    assert quarantine._file.read("SELECT count(*) FROM messages") == [(0,)]


def test_pruning_takes_a_bounded_number_at_once(quarantine, monkeypatch) -> None:
    monkeypatch.setattr("ingest.quarantine.MAX_FREED", 3)
    [kept] = quarantine.add([refused(items=8)])
    quarantine.add([refused(device="d2", items=8)])
    quarantine.mark_replayed(kept.ids, T)

    assert quarantine.prune(waiting_before_ns=T + 1, replayed_before_ns=T + 1) == 8
    assert quarantine.page(Selection(state="all")) == []


def test_erasing_a_device_leaves_nothing_of_it_and_all_of_others(quarantine) -> None:
    def keep(device: str, tenant: str = "default") -> tuple[int, ...]:
        raw = RawMessage(device, "json", "http", b"{", 1, tenant=tenant)
        return quarantine.add([Refused(raw, [Item(None, "bad_syntax", "x")])])[0].ids

    keep("d1")
    quarantine.mark_replayed(keep("d1"), 2)
    keep("d1", "other")
    keep("d2")

    assert quarantine.erase("d1") == 2

    assert quarantine.page(Selection(device="d1", state="all")) == []
    assert len(quarantine.page(Selection(device="d1", tenant="other"))) == 1
    assert (quarantine.totals()["quarantined"], quarantine.totals()["refused"]) == (2, 1)
    assert quarantine.erase("d1") == 0
