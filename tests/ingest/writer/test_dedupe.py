"""Second copies: the three ways, and what must never be taken for one."""

from __future__ import annotations

import pytest

from ingest.readings import Reading
from ingest.writer import dedupe
from ingest.writer.dedupe import Dedupe, Deliveries
from ingest.writer.gaps import BootKey, Boots
from wire.points import REDELIVERED, SERVER_TIME, FieldValue


def reading(time_ns: int = 1, value: FieldValue = 1.5, **members: object) -> Reading:
    return Reading("d1", "telemetry", time_ns, members.pop("received_ns", time_ns), {"t": value}, **members)  # type: ignore[arg-type]


def mqtt(mid: int, content: int, received_ns: int, *, again: bool = False) -> Reading:
    flags = SERVER_TIME | (REDELIVERED if again else 0)
    return reading(received_ns, content, received_ns=received_ns, flags=flags, delivery=mid, content=content)


def make(kept: dict[BootKey, bytes] | None = None) -> Dedupe:
    return Dedupe(Boots((kept or {}).get), Deliveries([], 0))


def test_second_copy_of_a_seq_is_a_duplicate_whatever_its_time() -> None:
    sifter = make()
    first = [reading(n, boot_id="b", seq=n) for n in (1, 2, 4)]

    assert sifter.sift(first, 0.0) == [0, 1, 2]
    assert sifter.sift([reading(99, boot_id="b", seq=2), reading(3, boot_id="b", seq=3)], 0.0) == [1]
    assert sifter.sift([reading(1, boot_id="c", seq=1)], 0.0) == [0], "another boot"


def test_seen_numbers_come_back_from_what_was_kept() -> None:
    before = make()
    before.sift([reading(n, boot_id="b", seq=n) for n in range(5)], 0.0)
    changes = before.boots.take_changes(0.0)

    after = make({change.key: change.content for change in changes})

    assert [(change.key, change.is_new) for change in changes] == [(("default", "d1", "b"), True)]
    assert after.sift([reading(n, boot_id="b", seq=n) for n in range(3, 7)], 0.0) == [2, 3]
    assert [change.is_new for change in after.boots.take_changes(0.0)] == [False]
    assert after.boots.take_changes(0.0) == []


def test_same_content_at_the_same_time_is_a_duplicate() -> None:
    sifter = make()

    assert sifter.sift([reading(1), reading(1), reading(2), reading(1)], 0.0) == [0, 2]


@pytest.mark.parametrize(
    ("one", "other"), [(-1, -2), (1, 1.0), (1, True), (0, False), ("1", 1), (-0.0, 0.0), (0, 2**61 - 1)]
)
def test_values_that_hash_alike_are_told_apart(one: FieldValue, other: FieldValue) -> None:
    assert make().sift([reading(1, one), reading(1, other)], 0.0) == [0, 1]


def test_value_that_returns_after_a_correction_is_new() -> None:
    assert make().sift([reading(1, 5.0), reading(1, 3.0), reading(1, 5.0)], 0.0) == [0, 1, 2]


def test_same_time_with_other_tags_or_device_is_new() -> None:
    other = Reading("d2", "telemetry", 1, 1, {"t": 1.5})
    tagged = Reading("d1", "telemetry", 1, 1, {"t": 1.5}, {"site": "a"})

    assert make().sift([reading(1), other, tagged], 0.0) == [0, 1, 2]


def test_batch_of_many_series_that_comes_again_is_all_duplicates() -> None:
    sifter = make()
    batch = [reading(1, tags={"cpu": f"cpu{n}"}) for n in range(4)]

    assert sifter.sift(batch, 0.0) == [0, 1, 2, 3]
    assert sifter.sift(batch, 0.0) == []


def test_contents_live_for_two_generations_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedupe, "GENERATION_ITEMS", 10)
    sifter = make()
    for start in range(0, 100, 5):
        sifter.sift([reading(n) for n in range(start, start + 5)], 0.0)

    assert len(sifter._recent._young) + len(sifter._recent._old) <= 20
    assert sifter.sift([reading(99)], 0.0) == []
    assert sifter.sift([reading(0)], 0.0) == [0]


def test_old_contents_are_forgotten_by_age() -> None:
    sifter = make()
    sifter.sift([reading(1)], 0.0)

    assert sifter.sift([reading(1)], 599.0) == []
    assert sifter.sift([reading(2)], 1_300.0) == [0]
    assert sifter.sift([reading(1)], 2_000.0) == [0]


def test_redelivered_message_is_a_duplicate_though_it_arrived_later() -> None:
    sifter = make()

    assert sifter.sift([mqtt(7, 111, 1_000)], 0.0) == [0]
    assert sifter.sift([mqtt(7, 111, 2_000, again=True)], 0.0) == []
    assert sifter.sift([mqtt(7, 111, 3_000, again=True)], 0.0) == []


def test_redelivered_message_read_before_its_first_copy_is_the_one_kept() -> None:
    sifter = make()

    assert sifter.sift([mqtt(7, 111, 2_000, again=True)], 0.0) == [0]
    assert sifter.sift([mqtt(7, 111, 1_000)], 0.0) == []


def test_equal_messages_not_marked_by_the_broker_are_both_kept() -> None:
    assert make().sift([mqtt(7, 111, 1_000), mqtt(7, 111, 2_000)], 0.0) == [0, 1]


def test_redelivered_message_of_other_content_is_new() -> None:
    assert make().sift([mqtt(7, 111, 1_000), mqtt(7, 112, 2_000, again=True)], 0.0) == [0, 1]


def test_all_readings_of_a_redelivered_message_share_its_fate() -> None:
    def pair(received_ns: int, *, again: bool) -> list[Reading]:
        return [
            Reading(
                "d1",
                name,
                received_ns,
                received_ns,
                {"t": 1},
                flags=SERVER_TIME | again * REDELIVERED,
                delivery=7,
                content=111,
            )
            for name in ("a", "b")
        ]

    sifter = make()

    assert sifter.sift(pair(1_000, again=True), 0.0) == [0, 1], "the first copy never arrived"
    assert sifter.sift(pair(2_000, again=True), 0.0) == []


def test_message_ids_are_forgotten_behind_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedupe, "WINDOW", 10)
    sifter = make()
    sifter.sift([mqtt(n, 100 + n, n) for n in range(1, 12)], 0.0)

    assert len(sifter.deliveries._known) == 10
    assert sifter.sift([mqtt(11, 111, 50, again=True)], 0.0) == []
    assert sifter.sift([mqtt(1, 101, 51, again=True)], 0.0) == [0]


def test_deliveries_survive_being_kept() -> None:
    before = make()
    before.sift([mqtt(n, 100 + n, n) for n in range(1, 4)], 0.0)
    rows = before.deliveries.take_changes()

    after = Dedupe(Boots({}.get), Deliveries(rows, before.deliveries.number))

    assert after.sift([mqtt(2, 102, 50, again=True), mqtt(9, 109, 51)], 0.0) == [1]
    assert after.deliveries.number == 4


def test_message_id_used_again_among_timed_messages_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedupe, "WINDOW", 10)
    sifter = make()
    timed = [Reading("d2", "telemetry", n, n, {"t": n}, delivery=n % 5) for n in range(100, 120)]

    assert sifter.sift([mqtt(7, 111, 1)], 0.0) == [0]
    assert len(sifter.sift(timed, 0.0)) == 20
    assert sifter.sift([mqtt(7, 111, 200, again=True)], 0.0) == [0], "its first copy never arrived"


def test_numbered_messages_count_too_but_no_message_counts_twice() -> None:
    sifter = make()
    members = {"boot_id": "b", "delivery": 3}
    sifter.sift([Reading("d2", "telemetry", n, 50, {"t": n}, seq=n, **members) for n in range(4)], 0.0)
    sifter.sift([Reading("d2", "telemetry", 9, 60, {"t": 9}, seq=9, flags=REDELIVERED, **members)], 0.0)

    assert sifter.deliveries.number == 1


def test_redelivered_message_is_a_duplicate_though_the_clock_went_back() -> None:
    assert make().sift([mqtt(7, 111, 2_000), mqtt(7, 111, 1_000, again=True)], 0.0) == [0]
