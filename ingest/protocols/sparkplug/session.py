"""The session of one edge node: what it has declared, which of its messages came, when to ask for a new birth.

A state machine without clock, store or network (Sparkplug 3.0, sections 5 and 6.4): times are given, in seconds of any
monotonic clock, and what is to be done comes back.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

SEQUENCE = 256
HALF = SEQUENCE // 2
REORDER_S = 2.0  # how long messages may come out of order before their lack is a gap, unless a setting says so
ASK_AGAIN_S, ASK_AGAIN_MOST_S = 30.0, 3600.0  # between requests for a birth, doubled while unanswered
MAX_DEVICES = 1_000  # of one node
NODE = ""  # the node among its devices
HASH_BYTES = 8


class Key(NamedTuple):
    """Whose session: what one sender says of a node is nothing to another who has its topics later."""

    sender: str
    node: str  # external name

    @property
    def tenant(self) -> str:
        """The sender's tenant."""
        return self.sender.partition("/")[0]


@dataclass(slots=True, frozen=True)
class Birth:
    """What a node or a device declared of itself. Never changed: another birth takes its place."""

    types: dict[str, int]  # data types by name
    aliases: dict[int, str]  # names by alias


@dataclass(slots=True, frozen=True)
class Gap:
    """Numbers that never came: `expected` was the first of them, `got` what came instead."""

    expected: int
    got: int


def _no_contents() -> array[int]:
    return array("q", bytes(SEQUENCE * HASH_BYTES))


@dataclass(slots=True)
class Session:
    """An edge node. `be_born`, `take`, `die`... change it; `give_up` and `ask` give what time alone brings about."""

    death_number: int | None = None  # bdSeq of the birth
    expected: int = 0
    births: dict[str, Birth] = field(default_factory=dict)  # of those that are online; replaced, never changed
    ahead: set[int] = field(default_factory=set)  # numbers that came before those they follow
    gap: Gap | None = None  # certain, and not told yet
    gap_at_s: float | None = None  # when what is missing counts as lost
    contents: array[int] = field(default_factory=_no_contents)  # hash of the last message of each number
    recent: list[tuple[int, int]] = field(default_factory=list)  # numbers and hashes since the last commit
    before: bytes = b""  # hashes of messages of the sessions before, which may be delivered once more
    asked_s: float | None = None  # when a birth was asked for last; None: not since the last one
    pause_s: float = ASK_AGAIN_S
    is_wanted: bool = False  # a birth is to be asked for, as soon as it may
    birth: int = 0  # hash of the birth's content
    reorder_s: float = REORDER_S

    @property
    def is_online(self) -> bool:
        """Whether the node was born and has not died."""
        return NODE in self.births

    @property
    def devices(self) -> list[str]:
        """The devices that are online."""
        return [device for device in self.births if device != NODE]

    def fork(self) -> Session:
        """Give a copy to go on with, that leaves this one as it is."""
        return replace(self, ahead=set(self.ahead), contents=self.contents[:], recent=[])

    def be_born(self, number: int, death_number: int | None, content: int, birth: Birth) -> None:
        """Begin anew: all that was declared before is void, the devices are offline until their own births."""
        said = array("q", filter(None, self.contents)).tobytes()
        self.before = (self.before + said)[-SEQUENCE * HASH_BYTES :]
        self.death_number, self.birth, self.births = death_number, content, {NODE: birth}
        self.expected, self.contents = (number + 1) % SEQUENCE, _no_contents()
        self._note(number, content)
        self._forget_gap()
        self.asked_s, self.pause_s, self.is_wanted = None, ASK_AGAIN_S, False

    def declare(self, device: str, birth: Birth) -> None:
        """Replace what a device has declared: it is online."""
        self.births = self.births | {device: birth}

    def lose(self, device: str) -> None:
        """Note that a device is offline; what it declared is void."""
        self.births = {name: birth for name, birth in self.births.items() if name != device}

    def is_repeated(self, number: int, content: int, *, is_dated: bool) -> bool:
        """Tell whether a message came before: the same number and content, or in an earlier session the same one.

        Without a date a node may well say the same in one session as in another.
        """
        if is_dated and content.to_bytes(HASH_BYTES, "little", signed=True) in self.before:
            return True
        return self.contents[number] == content and number != self.expected

    def take(self, number: int, content: int, now_s: float) -> bool:
        """Note a message that came: it follows the last one, comes before its time, or fills a hole.

        Returns:
            Whether it is of this session. One that is older than what is expected may be of an earlier one.
        """
        distance = (number - self.expected) % SEQUENCE
        if distance >= HALF and self.ahead and (number - self._farthest()) % SEQUENCE < HALF:
            self._go_on()  # a fast node: what is missing must not make all that follows look old
            distance = (number - self.expected) % SEQUENCE
        if distance >= HALF:
            return False
        self._note(number, content)
        if distance:
            self.ahead.add(number)
            self.gap_at_s = now_s + self.reorder_s if self.gap_at_s is None else self.gap_at_s
            return True
        self._advance((number + 1) % SEQUENCE)
        self.gap_at_s = now_s + self.reorder_s if self.ahead else None
        return True

    def give_up(self, now_s: float) -> Gap | None:
        """Give the gap that has become certain, and go on behind it; None: there is none."""
        if self.gap_at_s is not None and now_s >= self.gap_at_s:
            self._go_on()
        gap, self.gap = self.gap, None
        return gap

    def die(self) -> None:
        """End: the node and all its devices are offline; aliases stand for nothing until the next birth."""
        self.births = {}
        self._forget_gap()

    def ask(self, now_s: float) -> None:
        """Note that a birth is asked for now."""
        if self.asked_s is not None:
            self.pause_s = min(self.pause_s * 2, ASK_AGAIN_MOST_S)
        self.asked_s, self.is_wanted = now_s, False

    @property
    def gap_due_s(self) -> float | None:
        """When a gap is to be told; None: there is none to wait for."""
        return 0.0 if self.gap is not None else self.gap_at_s

    @property
    def ask_due_s(self) -> float | None:
        """When a birth is to be asked for; None: there is no need. One that came makes it at once."""
        if not self.is_wanted:
            return None
        return 0.0 if self.asked_s is None else self.asked_s + self.pause_s

    def _note(self, number: int, content: int) -> None:
        self.contents[number] = content
        self.recent.append((number, content))

    def _farthest(self) -> int:
        return max(self.ahead, key=lambda number: (number - self.expected) % SEQUENCE)

    def _go_on(self) -> None:
        nearest = min(self.ahead, key=lambda number: (number - self.expected) % SEQUENCE)
        self.gap = self.gap or Gap(self.expected, nearest)
        self.expected = (self._farthest() + 1) % SEQUENCE
        self.ahead, self.gap_at_s = set(), None
        self.is_wanted = True

    def _forget_gap(self) -> None:
        self.ahead, self.gap, self.gap_at_s = set(), None, None

    def _advance(self, expected: int) -> None:
        while expected in self.ahead:
            self.ahead.discard(expected)
            expected = (expected + 1) % SEQUENCE
        self.expected = expected

    def to_json(self) -> dict[str, Any]:
        """Give what outlives a restart beside the births: not what was being waited for, nor what was asked."""
        return {
            "death_number": self.death_number,
            "expected": self.expected,
            "birth": self.birth,
            "recent": self.recent[-SEQUENCE:],
        }

    @classmethod
    def from_json(cls, state: dict[str, Any], before: bytes, births: dict[str, Birth]) -> Session:
        """Give a session as it was kept."""
        session = cls(state["death_number"], state["expected"], births, before=before, birth=state["birth"])
        for number, content in state["recent"]:
            session.contents[number] = content
        return session
