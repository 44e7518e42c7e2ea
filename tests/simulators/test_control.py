"""What a simulated device makes of commands and of its twin."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from simulators.control import Answers, ControlBook, DeviceControl, Said, parse_answers
from simulators.control_verdict import find_lost, summary
from simulators.dice import Dice
from wire import clock

NOW_NS = clock.parse_time("2026-01-02T03:04:05Z")
DESIRED = "devices/d1/twin/desired"


def device(book: ControlBook, answers: Answers | None = Answers(), seed: str = "1") -> DeviceControl:  # noqa: B008
    return DeviceControl("d1", answers, "1.4.2", Dice(seed), book)


def send(control: DeviceControl, command: str, deadline_s: int = 10) -> list[Said]:
    content = {"id": command, "name": "work", "deadline": clock.format_ns(NOW_NS + deadline_s * clock.NS_PER_S)}
    return control.hear(f"devices/d1/commands/{command}", orjson.dumps(content), NOW_NS)


def desire(control: DeviceControl, version: int, **desired: Any) -> list[Any]:
    said = control.hear(DESIRED, orjson.dumps({"version": version, "desired": desired}), NOW_NS)
    return [orjson.loads(each.payload) for each in said]


def test_shares_hold_and_the_seed_decides() -> None:
    books = [ControlBook(), ControlBook()]
    for book in books:
        control = device(book, parse_answers("failed=20%,late=10%,never=10%"))
        for number in range(2_000):
            send(control, f"c{number}")

    counts = books[0].counts
    assert counts == books[1].counts
    assert counts["commands.received"] == 2_000
    for name, share in (("failed", 0.2), ("late", 0.1), ("never", 0.1), ("succeeded", 0.6)):
        assert abs(counts[f"commands.{name}"] / 2_000 - share) < 0.04


@pytest.mark.parametrize(
    ("answers", "states", "delay_s"),
    [
        (Answers(), ["accepted", "succeeded"], 0.0),
        (Answers(failed=1.0), ["accepted", "failed"], 0.0),
        (Answers(late=1.0), ["accepted", "succeeded"], 10.5),
        (Answers(never=1.0), [], 0.0),
    ],
)
def test_command_is_answered_as_the_shares_say(answers: Answers, states: list[str], delay_s: float) -> None:
    said = send(device(ControlBook(), answers), "c1")

    assert [orjson.loads(each.payload)["state"] for each in said] == states
    assert {each.topic for each in said} <= {"devices/d1/commands/c1/reply"}
    assert not said or said[-1].delay_s == pytest.approx(delay_s)


def test_command_that_comes_twice_is_done_once() -> None:
    book = ControlBook()
    control = device(book, Answers(failed=0.5))

    first, again = send(control, "c1"), send(control, "c1")

    assert first == again
    assert (book.counts["commands.received"], book.counts["commands.repeated"]) == (1, 1)
    assert book.counts["commands.failed"] + book.counts["commands.succeeded"] == 1


def test_twin_says_its_firmware_then_becomes_what_is_desired() -> None:
    control = device(ControlBook())

    assert [orjson.loads(each.payload) for each in control.begin()] == [{"fw": "1.4.2"}]
    assert control.begin() == []
    assert desire(control, 1, interval=5, led={"on": True, "hue": 3}) == [
        {"interval": 5, "led": {"on": True, "hue": 3}}
    ]
    assert desire(control, 1, interval=6) == []  # the broker told the same version again
    assert desire(control, 2, led={"on": True, "hue": 4}) == [{"interval": None, "led": {"hue": 4}}]


def test_device_without_power_says_all_again() -> None:
    control = device(ControlBook())
    control.begin()
    desire(control, 3, interval=5)

    control.lose_power()

    assert len(control.begin()) == 1
    assert desire(control, 3, interval=5) == [{"interval": 5}]


@pytest.mark.parametrize("payload", [b"[]", b"{", b'{"id":"c1"}', b"7"])
def test_what_is_no_command_is_counted(payload: bytes) -> None:
    book = ControlBook()

    assert device(book).hear("devices/d1/commands/c1", payload, NOW_NS) == []
    assert device(book).hear(DESIRED, b"", NOW_NS) == []  # taken away from the broker
    assert book.counts == Counter({"commands.malformed": 1})


def test_device_subscribes_to_what_it_follows() -> None:
    book = ControlBook()
    assert device(book).topics == ["devices/d1/commands/+", DESIRED]
    assert device(book, None).topics == [DESIRED]
    assert DeviceControl("d1", Answers(), None, Dice("1"), book).topics == ["devices/d1/commands/+"]


def shown(**states: str) -> Any:
    async def pages() -> AsyncIterator[list[dict[str, Any]]]:
        for command, state in states.items():
            result = None if state == "gone" else {"done": command}
            yield [{"id": command, "state": state.replace("gone", "expired"), "result": result, "error": None}]

    return pages


@pytest.mark.parametrize(
    ("states", "lost"),
    [
        ({"c1": "succeeded", "c2": "failed", "c3": "queued"}, 0),
        ({"c1": "expired", "c2": "failed", "c3": "expired"}, 0),  # the answer came too late and is kept
        ({"c1": "gone", "c2": "failed", "c3": "expired"}, 1),  # the answer was lost
        ({"c1": "failed", "c2": "failed", "c3": "expired"}, 1),  # somebody else's answer
        ({"c1": "succeeded", "c2": "failed"}, 1),  # the command was lost
    ],
)
def test_lost_commands_and_answers_are_counted(states: dict[str, str], lost: int) -> None:
    book = ControlBook(answers={"c1": "succeeded", "c2": "failed"}, asked={"c1": 0.0, "c2": 0.0, "c3": 0.0})

    assert asyncio.run(find_lost(shown(**states), book, 0.0)) == lost


def test_report_is_null_where_nothing_was_told() -> None:
    assert summary(ControlBook())["commands"] is None
    told = summary(ControlBook(counts=Counter({"commands.sent": 2}), asked={"c1": 1.0}, heard={"c1": 1.5}), 1)
    assert (told["commands"]["sent"], told["commands"]["lost"], told["twin"]) == (2, 1, None)
    assert told["command_ms"]["max"] == 500
