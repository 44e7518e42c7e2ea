"""What a simulated device does when it is told something: answers commands, follows its twin. Knows no socket.

A command that comes twice (it is delivered at least once) is done once: its id is remembered and the answer repeated.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from simulators.dice import Dice
from simulators.stats import Durations
from simulators.units import parse_share
from wire import clock, topics

LATE_S = 0.5  # after the deadline
REMEMBERED = 100  # ids of commands; a device's queue at the platform is no longer
_COMMANDS, _DESIRED = "commands", "twin"


@dataclass(frozen=True, slots=True)
class Answers:
    """Shares of commands (0 to 1) that are not done; all others succeed."""

    failed: float = 0.0
    late: float = 0.0  # done, but answered after the deadline
    never: float = 0.0  # not answered at all

    def pick(self, roll: float) -> str:
        """Turn a number in [0, 1) into what becomes of a command."""
        for name in SHARES:
            roll -= getattr(self, name)
            if roll < 0:
                return name
        return "succeeded"


SHARES = tuple(each.name for each in fields(Answers))


def parse_answers(text: str) -> Answers:
    """Read `failed=5%,late=1%,never=1%`; nothing = all succeed.

    Raises:
        ValueError: an unknown word, a bad share, or more than all commands.
    """
    parts = (piece.strip().partition("=") for piece in text.split(",") if piece.strip())
    return read_answers({name: share for name, _, share in parts})


def read_answers(shares: Mapping[str, object]) -> Answers:
    """Read shares by name. Raises as `parse_answers`."""
    found: dict[str, float] = {}
    for name, share in shares.items():
        if name not in SHARES:
            raise ValueError(f"unknown answer {name!r} (known: {', '.join(SHARES)})")
        try:
            found[name] = parse_share(str(share))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if sum(found.values()) > 1:
        raise ValueError(f"answers of {sum(found.values()):.0%} of all commands, limit 100%")
    return Answers(**found)


@dataclass(slots=True)
class ControlBook:
    """What the devices of a process heard and said, and what they were sent; names are those of the report."""

    counts: Counter[str] = field(default_factory=Counter)
    answers: dict[str, str] = field(default_factory=dict)  # command -> state, when the broker has the answer
    asked: dict[str, float] = field(default_factory=dict)  # command -> when the request began, time.monotonic
    heard: dict[str, float] = field(default_factory=dict)  # command -> when its device had it first

    def command_ms(self) -> Durations:
        """Give how long commands took from the request to their devices."""
        durations = Durations()
        for command in self.asked.keys() & self.heard.keys():
            durations.add((self.heard[command] - self.asked[command]) * 1000)
        return durations

    def merge(self, other: ControlBook) -> None:
        """Add what another process counted."""
        self.counts.update(other.counts)
        for name in ("answers", "asked", "heard"):
            getattr(self, name).update(getattr(other, name))

    def unheard(self) -> int:
        """Count commands that were sent and have not come to their devices."""
        return len(self.asked.keys() - self.heard.keys())


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a device about itself; `command` and `state` where it is the answer to one."""

    topic: str
    payload: bytes
    delay_s: float = 0.0
    command: str = ""
    state: str = ""


class DeviceControl:
    """One device's side of commands and twin."""

    __slots__ = ("_answers", "_book", "_device_id", "_dice", "_done", "_firmware", "_reported", "_version")

    def __init__(
        self, device_id: str, answers: Answers | None, firmware: str | None, dice: Dice, book: ControlBook
    ) -> None:
        """Prepare a device.

        Args:
            device_id: its id.
            answers: what becomes of commands; None: it listens to none.
            firmware: the version that its twin reports; None: it has no twin.
            dice: decides about each command.
            book: where it is counted.
        """
        self._device_id, self._answers, self._firmware = device_id, answers, firmware
        self._dice, self._book = dice, book
        self._done: dict[str, str] = {}  # command -> what became of it, oldest first
        self.lose_power()

    @property
    def topics(self) -> list[str]:
        """What it subscribes to."""
        commands = [topics.command(self._device_id, "+")] if self._answers is not None else []
        return commands + ([topics.twin_desired(self._device_id)] if self._firmware is not None else [])

    def lose_power(self) -> None:
        """Forget what only memory held: how it was set. Ids of commands are on its disk."""
        self._reported: dict[str, Any] = {}
        self._version = 0

    def begin(self) -> list[Said]:
        """Give what it says of itself after connecting, where that was not said since it has power."""
        return self._report({"fw": self._firmware}) if self._firmware is not None and not self._reported else []

    def hear(self, topic: str, payload: bytes, now_ns: int) -> list[Said]:
        """Take a message; give what it says to that. What is none of a device's business is counted and ignored."""
        found = topics.parse_device_topic(topic)
        channel = found.channel if found is not None else ""
        try:
            content = orjson.loads(payload)
            if channel == _COMMANDS:
                return self._obey(content["id"], clock.parse_time(content["deadline"]), now_ns)
            return self._become(content["version"], content["desired"]) if channel == _DESIRED else []
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            if payload:  # else: a retained message was taken away
                self._book.counts[f"{channel}.malformed"] += 1
            return []

    def acked(self, said: Said) -> None:
        """Note that the broker has a message."""
        if said.state:
            self._book.counts["commands.answered"] += 1
            self._book.answers[said.command] = said.state
        elif not said.command:
            self._book.counts["twin.reported"] += 1

    def _obey(self, command: str, deadline_ns: int, now_ns: int) -> list[Said]:
        counts = self._book.counts
        is_new = command not in self._done
        counts["commands.received" if is_new else "commands.repeated"] += 1
        if is_new:
            assert self._answers is not None
            self._book.heard[command] = time.monotonic()
            self._done[command] = ending = self._answers.pick(self._dice.random())
            counts[f"commands.{ending}"] += 1
            if len(self._done) > REMEMBERED:
                del self._done[next(iter(self._done))]
        ending = self._done[command]
        if ending == "never":
            return []
        delay_s = max(0.0, (deadline_ns - now_ns) / clock.NS_PER_S + LATE_S) if ending == "late" else 0.0
        accepted = Said(self._reply_topic(command), b'{"state":"accepted"}', command=command)
        return [accepted, self._answer(command, "failed" if ending == "failed" else "succeeded", delay_s)]

    def _answer(self, command: str, state: str, delay_s: float) -> Said:
        more = {"error": "broken on purpose"} if state == "failed" else {"result": {"done": command}}
        return Said(self._reply_topic(command), orjson.dumps({"state": state} | more), delay_s, command, state)

    def _reply_topic(self, command: str) -> str:
        return topics.command_reply(self._device_id, command)

    def _become(self, version: int, desired: dict[str, Any]) -> list[Said]:
        if version <= self._version:
            self._book.counts["twin.repeated"] += 1
            return []
        self._version = version
        self._book.counts["twin.desired"] += 1
        return self._report(desired | {"fw": self._firmware})

    def _report(self, state: dict[str, Any]) -> list[Said]:
        patch = _patch(self._reported, state)
        self._reported = state
        return [Said(topics.twin_reported(self._device_id), orjson.dumps(patch))]


def _patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Give the merge patch (RFC 7396) that makes `new` of `old`."""
    patch: dict[str, Any] = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict):
            patch[key] = _patch(before if isinstance(before, dict) else {}, value)
        elif key not in old or before != value:
            patch[key] = value
    return patch
