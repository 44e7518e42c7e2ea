"""What a device keeps after the broker's acknowledgement, and what of it goes out again."""

from __future__ import annotations

import orjson

from simulators.outbox import Outgoing
from simulators.resend import AGAIN_S, MOST_TRIES, TRUST_S, Unsettled


def reading(seq: int, boot_id: str = "b", *, is_malformed: bool = False) -> Outgoing:
    return Outgoing(0, seq, seq, b"{}", is_malformed, boot_id=boot_id)


def acks(newest: int, *missing: tuple[int, int], boot_id: str = "b", **more: object) -> bytes:
    seq = missing[0][0] - 1 if missing else newest
    body = {"boot_id": boot_id, "first": 1, "seq": seq, "newest": newest, "missing": missing}
    return orjson.dumps(body | {"time": "2026-01-02T03:04:05Z"} | more)


def kept(*seqs: int, boot_id: str = "b", limit: int = 100) -> Unsettled:
    unsettled = Unsettled(limit)
    for seq in seqs:
        unsettled.keep(reading(seq, boot_id))
    return unsettled


def seqs(readings: list[Outgoing]) -> list[int]:
    return [outgoing.seq for outgoing in readings]


def test_covered_readings_are_let_go_and_missing_ones_go_out_again() -> None:
    unsettled = kept(*range(1, 8))

    again = unsettled.hear(acks(5, (3, 4)), 0.0)

    assert seqs(again) == [3, 4]
    assert len(unsettled) == 4, "3 and 4, and 6 and 7 of which nothing was said"


def test_a_missing_reading_is_tried_a_few_times_and_not_in_a_row() -> None:
    unsettled = kept(1, 2, 3)
    message = acks(3, (2, 2))

    assert seqs(unsettled.hear(message, 0.0)) == [2]
    assert unsettled.hear(message, AGAIN_S - 0.1) == []
    tries = [seqs(unsettled.hear(message, AGAIN_S * n)) for n in range(1, 10)]
    assert tries == [[2]] * (MOST_TRIES - 1) + [[]] * (10 - MOST_TRIES)


def test_what_a_lost_connection_leaves_uncovered_goes_out_once() -> None:
    unsettled = kept(1, 2, 3)
    unsettled.doubt()
    assert unsettled.doubtful(0.0) == 3

    assert unsettled.hear(acks(2), 0.0) == []

    assert unsettled.doubtful(0.0) == 1
    assert seqs(unsettled.overdue()) == [3]
    assert (unsettled.overdue(), len(unsettled)) == ([], 1)


def test_a_broker_that_vanished_once_is_not_trusted_until_the_topic_covers() -> None:
    unsettled = kept(1)
    assert unsettled.doubtful(0.0) == 0
    unsettled.doubt()
    unsettled.overdue()

    assert unsettled.doubtful(TRUST_S - 1) == 1, "it may vanish again"
    assert unsettled.doubtful(TRUST_S + 1) == 0, "what is in quarantine is never covered"
    unsettled.hear(acks(1), 0.0)
    assert unsettled.doubtful(0.0) == 0


def test_readings_of_this_connection_are_not_in_doubt() -> None:
    unsettled = kept(1)
    unsettled.doubt()
    unsettled.keep(reading(2))

    assert seqs(unsettled.overdue()) == [1]


def test_an_earlier_boot_is_settled_too() -> None:
    unsettled = kept(1, 2, boot_id="a")
    earlier = {"boot_id": "a", "first": 1, "seq": 1, "newest": 3, "missing": [[2, 2]]}

    again = unsettled.hear(acks(9, earlier=[earlier]), 0.0)

    assert seqs(again) == [2]
    assert len(unsettled) == 1


def test_nothing_is_concluded_from_another_boot_or_from_rubbish() -> None:
    unsettled = kept(1, 2)

    for payload in (acks(9, boot_id="other"), b"", b"{}", b"\xff", acks(9)[:-3]):
        assert unsettled.hear(payload, 0.0) == []

    assert len(unsettled) == 2


def test_the_outbox_is_bounded_and_keeps_the_newest() -> None:
    unsettled = kept(*range(10), limit=4)
    unsettled.doubt()

    assert seqs(unsettled.overdue()) == [6, 7, 8, 9]


def test_malformed_and_unnumbered_readings_are_not_kept() -> None:
    unsettled = kept()
    unsettled.keep(reading(1, is_malformed=True))
    unsettled.keep(reading(1, boot_id=""))

    assert len(unsettled) == 0
    none = kept(1, limit=0)
    assert len(none) == 0
