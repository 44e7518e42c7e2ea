"""Commands on their way to edge nodes, and what tells how they ended. Pure.

Sparkplug has no answer to a command. What a node does tell is the value that a metric has afterwards, and its birth
when it was asked for one: a command has succeeded when all the values it wrote were told back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ingest.protocols.base import Answer, Order, Record, Worded
from ingest.protocols.flatten import Refused
from ingest.protocols.sparkplug import names
from ingest.protocols.sparkplug.metrics import CONTROL
from ingest.protocols.sparkplug.names import Place
from ingest.protocols.sparkplug.session import Birth, Key
from ingest.protocols.sparkplug.written import write_all
from wire.points import HISTORICAL, FieldValue

WRITE, REBIRTH = "write", "rebirth"
REBIRTH_METRIC = "Node Control/Rebirth"
ONCE_S = 30 * 86_400.0  # not sent again by itself: a write that is repeated may do harm
MAX_PENDING = 10_000  # beyond them the oldest end by their deadline only
Told = tuple[Key, str | None, Mapping[str, FieldValue], bool]


@dataclass(slots=True, frozen=True)
class Pending:
    """A command that was sent."""

    id: str
    target: str  # id of the device
    key: Key
    device: str | None  # of the node
    left: dict[str, FieldValue]  # values that were not told back yet
    deadline_ns: int
    result: dict[str, FieldValue]  # those that were

    @property
    def has_ended(self) -> bool:
        """Whether all were told back."""
        return not self.left

    def to_json(self) -> list[Any]:
        """Give what outlives a restart."""
        return [self.target, *self.key, self.device, self.left, self.deadline_ns, self.result]

    @classmethod
    def from_json(cls, id_: str, kept: list[Any]) -> Pending:
        """Give a command as it was kept."""
        target, sender, node, device, left, deadline_ns, result = kept
        return cls(id_, target, Key(sender, node), device, left, deadline_ns, result)


class Orders:
    """Commands whose end is waited for, oldest first."""

    def __init__(self, kept: Iterable[Pending] = ()) -> None:
        self._pending: dict[str, Pending] = {}
        self._of: dict[Key, set[str]] = {}  # the ids of a node's
        self._ended: dict[str, None] = {}  # in order
        for each in kept:
            self._put(each)

    def heed(self, told: Iterable[Told]) -> dict[str, Pending]:
        """Take in what nodes told, in order (`True`: by a birth); give the commands that are further by it."""
        further: dict[str, Pending] = {}
        for key, device, values, is_birth in told:
            for id_ in self._of.get(key, ()):
                if moved := _heed(self._pending[id_], device, values, is_birth=is_birth):
                    further[id_] = moved
                    self._replace(moved)
        return further

    def add(self, pending: Pending, now_ns: int) -> dict[str, Pending | None]:
        """Wait for the end of a command; give what changes by it: those that are over are forgotten."""
        over: dict[str, Pending | None] = {
            each.id: None for each in self._pending.values() if each.deadline_ns <= now_ns and not each.has_ended
        }
        if len(self._pending) - len(over) >= MAX_PENDING:
            over[next(iter(self._pending))] = None
        self.forget(over)
        self._put(pending)
        return over | {pending.id: pending}

    @property
    def has_answers(self) -> bool:
        """Whether there are answers."""
        return bool(self._ended)

    def answers(self) -> list[Answer]:
        """Give the answers."""
        ended = [self._pending[id_] for id_ in self._ended]
        return [Answer(each.id, each.target, each.result) for each in ended]

    def forget(self, ids: Collection[str]) -> list[str]:
        """Wait for these no more; give those that were waited for."""
        known = [self._pending.pop(id_) for id_ in ids if id_ in self._pending]
        for each in known:
            self._ended.pop(each.id, None)
            self._of[each.key].discard(each.id)
            if not self._of[each.key]:
                del self._of[each.key]
        return [each.id for each in known]

    def _replace(self, pending: Pending) -> None:
        self._pending[pending.id] = pending
        if pending.has_ended:
            self._ended[pending.id] = None

    def _put(self, pending: Pending) -> None:
        self._replace(pending)
        self._of.setdefault(pending.key, set()).add(pending.id)

    def __len__(self) -> int:
        return len(self._pending)


def whose(order: Order) -> list[tuple[Key, Place]]:
    """Give the nodes and devices that a command may be for: those the device is known as."""
    sender = f"{order.tenant}/{order.gateway or order.device}"
    places = [place for name in order.names if (place := names.place(name)) is not None]
    return [(Key(sender, place.node), place) for place in places]


def word(order: Order, at: tuple[Key, Place], birth: Birth, time_ms: int) -> tuple[Worded, Pending]:
    """Word a command to a node or device that is online.

    Raises:
        Refused: it is no command of Sparkplug, or not for this birth.
    """
    key, place = at
    if order.name == REBIRTH:
        place, wanted = Place(place.node), {REBIRTH_METRIC: True}
        birth = Birth({REBIRTH_METRIC: 11}, {})  # what every node has, by its name (tck-id-...-rebirth-name-aliases)
    elif order.name == WRITE and isinstance(order.params, dict):
        wanted = order.params
    else:
        raise Refused("unsupported", f'neither {REBIRTH} nor {WRITE} with params {{"metric": value}}')
    content, values = write_all(birth, wanted, time_ms)
    pending = Pending(order.id, order.device, key, place.device, values, order.deadline_ns, {})
    return Worded(names.command(place.node, place.device), content, ONCE_S), pending


def values_of(records: Iterable[Record]) -> dict[str, FieldValue]:
    """Give the values that hold now, of what was read of a message."""
    return {name: value for record in records if not record.flags & HISTORICAL for name, value in record.fields.items()}


def _heed(pending: Pending, device: str | None, values: Mapping[str, FieldValue], *, is_birth: bool) -> Pending | None:
    met = {
        name
        for name, value in pending.left.items()
        if (pending.device == device and name in values and values[name] == value)
        or (is_birth and device is None and name.startswith(CONTROL))
    }
    if not met:
        return None
    left = {name: value for name, value in pending.left.items() if name not in met}
    return replace(pending, left=left, result=pending.result | {name: pending.left[name] for name in met})
