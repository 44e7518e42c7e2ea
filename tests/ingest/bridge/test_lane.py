"""A lane keeps the order of each device, believes only verdicts, and lets no bad message hold up the good ones."""

from __future__ import annotations

import threading
from collections.abc import Callable

import orjson
import pytest

from ingest.bridge.config import Limits
from ingest.bridge.lane import Lane, Settled
from ingest.framing import Batch, Delivery, Ending, Saying, Verdict, decode_batch, encode_verdict
from tests.ingest.bridge.support import defer_if, take_all
from tests.support.waiting import wait_until
from wire.errors import HeadwaterError, PeerUnavailable, TooLarge

QUICK = Limits(linger_s=0.001, retry_first_s=0.005, retry_most_s=0.02)


class FakePeer:
    """Records what it accepted; `behave` answers, or raises."""

    def __init__(self) -> None:
        self.behave: Callable[[Batch], Verdict] = take_all
        self.tried: list[int] = []
        self.taken: list[Delivery] = []

    def call(self, method: str, path: str, body: bytes, *, token: str | None = None) -> object:
        batch = decode_batch(body)
        self.tried.append(len(batch.deliveries))
        verdict = self.behave(batch)
        if isinstance(verdict, Verdict):
            late = {ending.index for ending in verdict.endings if ending.end == "deferred"}
            self.taken += [each for index, each in enumerate(batch.deliveries) if index not in late]
            return orjson.loads(encode_verdict(verdict))
        return verdict


class Fixture:
    """A lane with its thread, its peer, and what it settled."""

    def __init__(self, limits: Limits = QUICK) -> None:
        self.peer, self.settled = FakePeer(), []
        self.lane = Lane(self.peer, "b", self.settled.append, limits)
        self.thread = threading.Thread(target=self.lane.run)

    def start(self) -> Fixture:
        self.thread.start()
        return self

    def done(self) -> list[int]:
        return [each.mid for settled in list(self.settled) for each in settled.deliveries]


@pytest.fixture
def lane():
    fixture = Fixture()
    yield fixture
    fixture.lane.stop()
    if fixture.thread.ident:
        fixture.thread.join(5)


def message(mid: int, device: str = "d", payload: bytes = b"{}") -> Delivery:
    return Delivery(device, f"devices/{device}/telemetry", payload, mid, mid)


def test_messages_that_wait_go_in_one_batch(lane):
    lane.lane.put([message(mid) for mid in range(1, 501)])

    lane.start()

    wait_until(lambda: len(lane.done()) == 500, what="all are settled")
    assert lane.peer.tried == [500]


def test_batches_are_bounded_by_count_and_bytes(lane):
    lane.lane.put([message(mid, payload=b"x" * 300_000) for mid in range(1, 8)])
    lane.lane.put([message(mid) for mid in range(8, 1508)])

    lane.start()

    wait_until(lambda: len(lane.done()) == 1507, what="all are settled")
    assert lane.peer.tried == [3, 3, 1000, 501]


def test_failed_batch_comes_again_unchanged_and_unsettled(lane):
    answers = iter([PeerUnavailable("away"), PeerUnavailable("away"), None])
    lane.peer.behave = lambda batch: raise_or_take(next(answers), batch)
    sent = [message(mid) for mid in range(1, 4)]

    lane.lane.put(sent)
    lane.start()

    wait_until(lambda: lane.settled, what="settled")
    assert lane.peer.tried == [3, 3, 3]
    assert lane.peer.taken == sent
    assert lane.done() == [1, 2, 3]


def raise_or_take(error: Exception | None, batch: Batch) -> Verdict:
    if error is not None:
        raise error
    return take_all(batch)


@pytest.mark.parametrize(
    "rubbish",
    [
        None,
        b"<html>",
        {},
        [],
        {"accepted": "many"},
        {"accepted": 1, "endings": [{"index": 2, "end": "refused"}]},
        {"accepted": 1, "endings": [{"index": -1, "end": "refused"}]},
        {"accepted": 1, "endings": [{"index": 0, "end": "perhaps"}]},
    ],
)
def test_answer_that_is_no_verdict_settles_nothing(lane, rubbish):
    lane.peer.behave = lambda batch: rubbish if len(lane.peer.tried) <= 2 else take_all(batch)

    lane.lane.put([message(1), message(2)])
    lane.start()

    wait_until(lambda: lane.settled, what="settled by a real verdict")
    assert lane.peer.tried == [2, 2, 2]


def test_deferred_device_waits_in_order_while_others_go_on(lane):
    lane.peer.behave = defer_if(lambda each: each.device == "slow")
    lane.start()

    for mid in range(1, 101):
        lane.lane.put([message(mid, "slow" if mid % 2 else "quick")])
    wait_until(lambda: len(lane.done()) == 50, what="the others are settled")
    assert {each.device for each in lane.peer.taken} == {"quick"}
    lane.peer.behave = take_all

    wait_until(lambda: len(lane.done()) == 100, what="all are settled")
    for device in ("slow", "quick"):
        mids = [each.mid for each in lane.peer.taken if each.device == device]
        assert mids == sorted(mids)


def test_refused_and_quarantined_are_settled_with_their_endings(lane):
    endings = [Ending(0, "quarantined", "bad_syntax", "x"), Ending(2, "refused", "unknown_device", "y")]
    lane.peer.behave = lambda batch: Verdict(1, endings)

    lane.lane.put([message(1), message(2), message(3)])
    lane.start()

    wait_until(lambda: lane.settled, what="settled")
    assert lane.done() == [1, 2, 3]
    assert [(each.mid, ending.code) for each, ending in lane.settled[0].endings] == [
        (1, "bad_syntax"),
        (3, "unknown_device"),
    ]


def test_message_that_the_service_blames_is_found_and_refused_alone(lane):
    def behave(batch: Batch) -> Verdict:
        if any(each.mid == 77 for each in batch.deliveries):
            raise TooLarge("too much")
        return take_all(batch)

    lane.peer.behave = behave
    lane.lane.put([message(mid, f"d{mid % 7}") for mid in range(1, 201)])
    lane.start()

    wait_until(lambda: len(lane.done()) == 200, what="all are settled")
    assert len(lane.peer.taken) == 199
    assert [(each.mid, ending.end) for settled in lane.settled for each, ending in settled.endings] == [(77, "refused")]


def test_message_that_breaks_the_service_is_set_aside_but_never_given_up(lane):
    def behave(batch: Batch) -> Verdict:
        if any(each.mid == 77 for each in batch.deliveries):
            raise PeerUnavailable("POST answered 500")
        return take_all(batch)

    lane.peer.behave = behave
    lane.lane.put([message(mid, f"d{mid % 7}") for mid in range(1, 201)])
    lane.start()

    wait_until(lambda: len(lane.peer.taken) >= 182, what="the other devices go on")
    assert all(each.device != "d0" or each.mid < 77 for each in lane.peer.taken)
    lane.peer.behave = take_all
    wait_until(lambda: len(lane.done()) == 200, what="all are settled")


def test_stopped_service_costs_no_order_and_no_message(lane):
    is_up = threading.Event()

    def behave(batch: Batch) -> Verdict:
        if not is_up.is_set():
            raise PeerUnavailable("away")
        return take_all(batch)

    lane.peer.behave = behave
    lane.start()
    for mid in range(1, 301):
        lane.lane.put([message(mid, f"d{mid % 3}")])
    wait_until(lambda: len(lane.peer.tried) > 40, what="many attempts, batches of one among them")
    assert 1 in lane.peer.tried
    is_up.set()

    wait_until(lambda: len(lane.done()) == 300, what="all are settled")
    for device in ("d0", "d1", "d2"):
        mids = [each.mid for each in lane.peer.taken if each.device == device]
        assert mids == sorted(mids)


def test_what_waits_at_a_cut_is_posted_first_and_settled_under_its_old_number(lane):
    lane.lane.put([message(1), Delivery("d", "devices/d/telemetry", b"q0", 2, 0), message(3)])

    held = lane.lane.cut(1)
    lane.lane.put([message(1), message(4)])
    lane.start()

    wait_until(lambda: len(lane.done()) == 5, what="settled")
    assert [each.mid for each in held] == [1, 3]
    assert lane.done() == [1, 3, 0, 1, 4]
    assert [settled.epoch for settled in lane.settled] == [0, 1]


def test_what_waits_at_a_cut_survives_an_ingest_that_is_away(lane):
    answers = iter([PeerUnavailable("away")] * 3)
    lane.peer.behave = lambda batch: raise_or_take(next(answers, None), batch)
    lane.lane.put([message(1), message(2)])

    lane.lane.cut(1)
    lane.start()

    wait_until(lambda: lane.done() == [1, 2], what="settled")
    assert lane.peer.tried == [2, 2, 2, 2]


def test_second_cut_gives_up_what_came_between(lane):
    lane.lane.put([message(1)])
    lane.lane.cut(1)
    lane.lane.put([message(1), message(2)])

    held = lane.lane.cut(2)
    lane.start()

    wait_until(lambda: lane.settled, what="settled")
    assert [each.mid for each in held] == [1, 2]
    assert lane.done() == [1]


def test_deferred_device_of_an_earlier_connection_is_given_up_in_order(lane):
    late = iter([True])
    lane.peer.behave = defer_if(lambda each: each.device == "d" and next(late, False))
    lane.lane.put([message(1), message(2, "e"), message(3, "d", b"x" * 2_000_000)])

    lane.lane.cut(1)
    lane.start()

    wait_until(lambda: len(lane.done()) == 3, what="settled")
    assert [each.device for each in lane.peer.taken] == ["e"]
    assert [each.is_acceptable for each in lane.settled] == [False, True]


def test_batch_in_flight_is_settled_under_its_old_number(lane):
    sent, go_on = threading.Event(), threading.Event()

    def behave(batch: Batch) -> Verdict:
        sent.set()
        assert go_on.wait(10)
        return take_all(batch)

    lane.peer.behave = behave
    lane.start()
    lane.lane.put([message(1)])
    assert sent.wait(10)

    held = lane.lane.cut(1)
    go_on.set()

    wait_until(lambda: lane.settled, what="settled")
    assert [each.mid for each in held] == [1]
    assert [(settled.epoch, settled.is_cut) for settled in lane.settled] == [(0, True)]


def test_settled_batch_is_no_longer_in_flight(lane):
    lane.lane.put([message(1)])
    lane.start()
    wait_until(lambda: lane.settled, what="settled")

    assert lane.lane.cut(1) == []
    assert [settled.is_cut for settled in lane.settled] == [False]


def test_batch_that_fails_after_a_cut_is_tried_again_and_never_acked(lane):
    sent, go_on = threading.Event(), threading.Event()

    def behave(batch: Batch) -> Verdict:
        sent.set()
        assert go_on.wait(10)
        if len(lane.peer.tried) == 1:
            raise PeerUnavailable("away")
        return take_all(batch)

    lane.peer.behave = behave
    lane.start()
    lane.lane.put([message(1)])
    assert sent.wait(10)

    lane.lane.cut(1)
    go_on.set()

    wait_until(lambda: lane.settled, what="settled")
    assert lane.settled == [Settled(0, [message(1)], is_cut=True)], "its number is of the connection that is gone"
    assert lane.peer.tried == [1, 1]


def test_fault_of_ours_puts_the_batch_back(lane):
    answers = iter([RuntimeError("ours")])
    lane.peer.behave = lambda batch: raise_or_take(next(answers, None), batch)
    lane.lane.put([message(1), message(2)])

    with pytest.raises(RuntimeError):
        lane.lane.run()
    lane.start()

    wait_until(lambda: lane.done() == [1, 2], what="settled after all")


def test_wrong_service_token_never_refuses_messages(lane):
    def behave(batch: Batch) -> Verdict:
        error = HeadwaterError("no", code="unauthorized")
        error.status = 401
        raise error

    lane.peer.behave = behave
    lane.lane.put([message(1)])
    lane.start()

    wait_until(lambda: len(lane.peer.tried) > 10, what="many attempts")
    assert lane.settled == []


def test_device_over_its_rate_comes_again_at_its_time_and_beyond_its_share_as_surplus():
    fixture = Fixture(Limits(linger_s=0.001, window_messages=160)).start()  # a share is 10 messages
    is_over = True

    def behave(batch: Batch) -> Verdict:
        endings = [
            Ending(index, "deferred", retry_s=0.05)
            for index, each in enumerate(batch.deliveries)
            if each.device == "noisy" and is_over and not each.is_surplus
        ]
        return Verdict(len(batch.deliveries) - len(endings), endings)

    fixture.peer.behave = behave
    try:
        fixture.lane.put([Delivery("noisy", "t", b"{}", 0, mid) for mid in range(1, 11)])
        wait_until(lambda: fixture.peer.tried, 5)
        fixture.lane.put([Delivery("noisy", "t", b"{}", 0, mid) for mid in range(11, 31)])
        fixture.lane.put([Delivery("quiet", "t", b"{}", 0, mid) for mid in range(31, 41)])
        wait_until(lambda: len(fixture.done()) == 30, 5)
        surplus = {each.mid for each in fixture.peer.taken if each.is_surplus}
        is_over = False
        wait_until(lambda: len(fixture.done()) == 40, 5)
    finally:
        fixture.lane.stop()
        fixture.thread.join()

    assert surplus == set(range(11, 31))
    assert [each.mid for each in fixture.peer.taken if each.device == "noisy" and not each.is_surplus] == list(
        range(1, 11)
    )


def test_service_that_wants_to_be_asked_again_is_asked_by_an_empty_batch(lane):
    said = Saying("spBv1.0/g/NCMD/n", b"\x00again")

    def answer(batch: Batch) -> Verdict:
        return Verdict(1, again_s=0.02) if batch.deliveries else Verdict(0, sayings=[said])

    lane.peer.behave = answer
    lane.start()
    lane.lane.put([message(1)])

    wait_until(lambda: len(lane.settled) == 2, what="both are settled")
    assert lane.peer.tried == [1, 0]
    assert [settled.sayings for settled in lane.settled] == [[], [said]]
    assert [len(settled.deliveries) for settled in lane.settled] == [1, 0]


def test_service_that_is_away_is_asked_again_all_the_same(lane, monkeypatch):
    monkeypatch.setattr("ingest.bridge.lane.ASK_AGAIN_S", 0.01)
    answers = iter([Verdict(1, again_s=0.01), PeerUnavailable("away"), PeerUnavailable("away"), Verdict(0)])

    def answer(_batch: Batch) -> Verdict:
        found = next(answers)
        if isinstance(found, Verdict):
            return found
        raise found

    lane.peer.behave = answer
    lane.start()
    lane.lane.put([message(1)])

    wait_until(lambda: len(lane.settled) == 2, what="asked until it answered")
    assert lane.peer.tried == [1, 0, 0, 0]
