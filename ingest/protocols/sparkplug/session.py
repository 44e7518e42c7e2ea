"""The session of one edge node: what it has declared, which of its messages came, when to ask for a new birth.

A state machine without clock, store or network (Sparkplug 3.0, sections 5 and 6.4): times are given, in seconds of any
monotonic clock, and what is to be done comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

SEQUENCE = 256
HALF = SEQUENCE // 2
REORDER_S = 2.0  # how long messages may come out of order before their lack is a gap
ASK_AGAIN_S, ASK_AGAIN_MOST_S = 30.0, 3600.0  # between requests for a birth, doubled while unanswered
MAX_DEVICES = 1_000  # of one node


@dataclass(slots=True, frozen=True)
class Declared:
    """A metric as a birth declared it."""

    name: str
    datatype: int
    device: str | None  # None: of the node itself


@dataclass(slots=True, frozen=True)
class Gap:
    """Numbers that never came: `expected` was the first of them, `got` what came instead."""

    expected: int
    got: int


@dataclass(slots=True)
class Session:
    """An edge node. `born`, `take`, `die`... change it; `due` gives what time alone brings about."""

    is_online: bool = False
    death_number: int | None = None  # bdSeq of the birth
    expected: int = 0
    aliases: dict[int, Declared] = field(default_factory=dict)  # one map for the node and its devices
    metrics: dict[str, dict[str, int]] = field(default_factory=dict)  # data types by device ("": the node) and name
    devices: dict[str, bool] = field(default_factory=dict)  # whether online
    ahead: set[int] = field(default_factory=set)  # numbers that came before those they follow
    gap_at_s: float | None = None  # when what is missing counts as lost
    contents: dict[int, int] = field(default_factory=dict)  # hash of the last message of each number
    asked_s: float | None = None  # when a birth was asked for last; None: not since the last one
    pause_s: float = ASK_AGAIN_S
    is_wanted: bool = False  # a birth is to be asked for, as soon as it may
    birth: int = 0  # hash of the birth's content

    def fork(self) -> Session:
        """Give a copy to go on with, that leaves this one as it is."""
        return replace(self, ahead=set(self.ahead), contents=dict(self.contents))

    def be_born(self, number: int, death_number: int | None, content: int) -> None:
        """Begin anew: all that was declared before is void, the devices are offline until their own births."""
        self.is_online, self.death_number, self.birth = True, death_number, content
        self.expected = (number + 1) % SEQUENCE
        self.aliases, self.metrics, self.contents = {}, {}, {number: content}
        self.devices = dict.fromkeys(self.devices, False)
        self.ahead, self.gap_at_s = set(), None
        self.asked_s, self.pause_s, self.is_wanted = None, ASK_AGAIN_S, False

    def declare(self, device: str | None, metrics: dict[str, int], aliases: dict[int, str]) -> None:
        """Replace what a node or one of its devices has declared."""
        self.aliases = {alias: of for alias, of in self.aliases.items() if of.device != device}
        self.aliases |= {alias: Declared(name, metrics[name], device) for alias, name in aliases.items()}
        self.metrics = self.metrics | {device or "": metrics}
        if device is not None:
            self.mark(device, is_online=True)

    def mark(self, device: str, *, is_online: bool) -> None:
        """Note whether a device of the node is online."""
        self.devices = self.devices | {device: is_online}

    def datatype(self, device: str | None, name: str) -> int:
        """Give the declared data type of a metric; 0: it was not declared."""
        return self.metrics.get(device or "", {}).get(name, 0)

    def is_repeated(self, number: int, content: int) -> bool:
        """Tell whether a message came before in this session: the same number and the same content."""
        return self.contents.get(number) == content and number != self.expected

    def take(self, number: int, content: int, now_s: float) -> bool:
        """Note a message that came: it follows the last one, comes before its time, or fills a hole.

        Returns:
            Whether it is of this session. One that is older than what is expected may be of an earlier one.
        """
        distance = (number - self.expected) % SEQUENCE
        if distance >= HALF:
            return False
        self.contents[number] = content
        if distance:
            self.ahead.add(number)
            self.gap_at_s = now_s + REORDER_S if self.gap_at_s is None else self.gap_at_s
            return True
        self._advance((number + 1) % SEQUENCE)
        self.gap_at_s = now_s + REORDER_S if self.ahead else None
        return True

    def give_up(self, now_s: float) -> Gap | None:
        """Give the gap whose time is over, and go on behind it; None: there is none."""
        if self.gap_at_s is None or now_s < self.gap_at_s:
            return None
        nearest = min(self.ahead, key=lambda number: (number - self.expected) % SEQUENCE)
        gap = Gap(self.expected, nearest)
        farthest = max(self.ahead, key=lambda number: (number - self.expected) % SEQUENCE)
        self.ahead, self.gap_at_s = set(), None
        self.expected = (farthest + 1) % SEQUENCE
        self.is_wanted = True
        return gap

    def die(self) -> None:
        """End: the node and all its devices are offline; aliases stand for nothing until the next birth."""
        self.is_online = False
        self.devices = dict.fromkeys(self.devices, False)
        self.aliases, self.metrics = {}, {}
        self.ahead, self.gap_at_s = set(), None

    def ask(self, now_s: float) -> bool:
        """Tell whether a birth is to be asked for now, and note that it is."""
        if not self.is_wanted or now_s < self.next_ask_s:
            return False
        if self.asked_s is not None:
            self.pause_s = min(self.pause_s * 2, ASK_AGAIN_MOST_S)
        self.asked_s, self.is_wanted = now_s, False
        return True

    @property
    def next_ask_s(self) -> float:
        """Give from when on a birth may be asked for; a birth that came makes it at once."""
        return 0.0 if self.asked_s is None else self.asked_s + self.pause_s

    def _advance(self, expected: int) -> None:
        while expected in self.ahead:
            self.ahead.discard(expected)
            expected = (expected + 1) % SEQUENCE
        self.expected = expected

    @property
    def declared(self) -> tuple[object, object]:
        """Give what births declared; other objects only after another birth or death."""
        return self.aliases, self.metrics

    def declared_json(self) -> dict[str, Any]:
        """Give what births declared, as it outlives a restart."""
        return {"aliases": [[alias, of.name, of.device] for alias, of in self.aliases.items()], "metrics": self.metrics}

    def state_json(self) -> dict[str, Any]:
        """Give the rest that outlives a restart: not what was being waited for, nor what was asked."""
        return {
            "online": self.is_online,
            "death_number": self.death_number,
            "expected": self.expected,
            "birth": self.birth,
            "devices": self.devices,
        }

    @classmethod
    def from_json(cls, state: dict[str, Any], declared: dict[str, Any]) -> Session:
        """Give a session as it was kept."""
        session = cls(state["online"], state["death_number"], state["expected"])
        session.birth, session.devices, session.metrics = state["birth"], state["devices"], declared["metrics"]
        for alias, name, device in declared["aliases"]:
            session.aliases[alias] = Declared(name, session.datatype(device, name), device)
        return session
