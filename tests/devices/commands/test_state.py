from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.commands import state as life
from devices.commands.state import Command, Reply, Wanted
from wire.clock import NS_PER_S
from wire.errors import HeadwaterError

T0 = 1_800_000_000 * NS_PER_S
EVENTS = {
    "sent": lambda command, now_ns: life.sent(command, now_ns, "mqtt"),
    "unheard": life.unheard,
    "accepted": lambda command, now_ns: life.answered(command, Reply("accepted"), now_ns),
    "succeeded": lambda command, now_ns: life.answered(command, Reply("succeeded", "1"), now_ns),
    "failed": lambda command, now_ns: life.answered(command, Reply("failed", None, "no"), now_ns),
    "deadline": lambda command, now_ns: life.expired(command, max(now_ns, command.deadline_ns)),
    "cancelled": life.cancelled,
}


def after(*events: str) -> Command:
    command = life.begin(Wanted("d1", "reboot", "{}"), "default", "token:t", T0)
    for number, event in enumerate(events):
        command = EVENTS[event](command, T0 + number * NS_PER_S)
    return command


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "queued"),
        (["unheard"], "queued"),
        (["sent"], "sent"),
        (["sent", "accepted"], "delivered"),
        (["sent", "accepted", "sent"], "delivered"),
        (["sent", "accepted", "succeeded"], "succeeded"),
        (["sent", "failed"], "failed"),
        (["succeeded", "sent"], "succeeded"),
        (["succeeded", "failed"], "succeeded"),
        (["sent", "deadline"], "expired"),
        (["deadline", "succeeded"], "expired"),
        (["sent", "cancelled", "succeeded"], "cancelled"),
        (["sent", "succeeded", "cancelled", "deadline"], "succeeded"),
    ],
)
def test_events_decide_the_state(events, state) -> None:
    assert after(*events).state == state


@given(st.lists(st.sampled_from(list(EVENTS)), max_size=12))
def test_no_end_is_left_and_nothing_is_delivered_without_the_devices_word(events) -> None:
    command = after()
    for number, event in enumerate(events):
        new = EVENTS[event](command, T0 + number * NS_PER_S)
        assert command.active or new.state == command.state
        assert command.active or new.ended_ns == command.ended_ns
        command = new

    has_spoken = {"accepted", "succeeded", "failed"} & set(events)
    assert has_spoken or command.delivered_ns is None
    assert command.active == (command.ended_ns is None)


def test_late_answer_is_kept_once_beside_the_state() -> None:
    late = after("deadline", "failed", "succeeded")

    assert (late.state, late.error, late.result) == ("expired", "no", None)


def test_tries_back_off_and_end() -> None:
    command = after(*["sent"] * 6)

    assert (command.tries, command.due_ns) == (6, life.NEVER_NS)
    assert [life.back_off_s(number) for number in (1, 2, 3, 6, 50)] == [2, 4, 8, 60, 60]


@pytest.mark.parametrize(
    ("payload", "reply"),
    [
        (b"", Reply("succeeded")),
        (b'{"state":"accepted"}', Reply("accepted")),
        (b'{"state":"succeeded","result":{"a":1}}', Reply("succeeded", '{"a":1}')),
        (b'{"error":"no power"}', Reply("failed", None, "no power")),
        (b'{"uptime":5}', Reply("succeeded", '{"uptime":5}')),
        (b"[1]", Reply("succeeded", "[1]")),
        (b'{"result":false}', Reply("succeeded", "false")),
    ],
)
def test_replies_are_read(payload, reply) -> None:
    assert life.read_reply(payload) == reply


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"{", "bad_syntax"),
        (b"\xff", "bad_syntax"),
        (b'{"state":"done"}', "bad_value"),
        (b'{"error":5}', "bad_value"),
        (b'"' + b"x" * life.MAX_BYTES + b'"', "too_large"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "too_deep"),
        (b"[" * 17 + b"]" * 17, "too_deep"),
    ],
)
def test_bad_replies_are_refused(payload, code) -> None:
    with pytest.raises(HeadwaterError) as refused:
        life.read_reply(payload)

    assert refused.value.code == code


@pytest.mark.parametrize(
    ("params", "code"),
    [
        (10**30, "out_of_range"),
        ({"a": [-(2**64)]}, "out_of_range"),
        ([float("nan")], "nonfinite"),
        ("x" * 40_000, "too_large"),
    ],
)
def test_params_that_no_device_could_read_are_refused(params, code) -> None:
    with pytest.raises(HeadwaterError) as refused:
        life.dump(params, "params")

    assert (refused.value.code, refused.value.fields) == (code, ("params",))
