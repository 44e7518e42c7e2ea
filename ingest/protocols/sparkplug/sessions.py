"""All edge nodes of one ingestion service: a message goes into its node's session, and records and news come out.

Messages are taken in the order they came. What they change holds only after `commit`: a message whose records could
not be kept is delivered again, and must find its session as it was.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

from ingest.protocols.base import Context, Decoded
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.parse import Unreadable
from ingest.protocols.sparkplug import names
from ingest.protocols.sparkplug.agenda import Agenda
from ingest.protocols.sparkplug.metrics import Metrics, death_number, declared
from ingest.protocols.sparkplug.names import Spoken
from ingest.protocols.sparkplug.packed import unpack
from ingest.protocols.sparkplug.session import MAX_DEVICES, NODE, REORDER_S, SEQUENCE, Birth, Gap, Key, Session
from ingest.protocols.times import YEAR_2000_NS
from wire import clock

MAX_NODES = 20_000  # beyond them the one that was not heard for longest is forgotten: its next data asks for a birth
MAX_OF_TENANT = 5_000  # the same: one tenant must not cost the others their sessions
ASKS_PER_S = 20  # over all nodes: 10,000 unknown ones after a restart must not all answer at once
DATED_MS = YEAR_2000_NS // clock.NS_PER_MS  # an older time is that of a clock that was never set


@dataclass(slots=True)
class Taken:
    """What came of a message."""

    decoded: Decoded
    is_repeated: bool = False  # the same message as before: nothing of it is kept again


class Sessions:
    """Sessions by sender and node, the one heard last at the end. Not thread-safe: one after the other, in order."""

    def __init__(self, kept: Mapping[Key, Session] | None = None, reorder_s: float = REORDER_S) -> None:
        self._reorder_s = reorder_s
        self._nodes: dict[Key, Session] = dict(kept or {})
        self._changed: dict[Key, Session] = {}
        self._of: dict[str, dict[Key, None]] = {}  # the nodes of each tenant, in the same order
        for key in self._nodes:
            self._of.setdefault(key.tenant, {})[key] = None
        self._gaps, self._asks = Agenda[Key](), Agenda[Key]()
        self._allowed, self._allowed_s = float(ASKS_PER_S), 0.0
        self.online = sum(session.is_online for session in self._nodes.values())

    def take(self, content: bytes, context: Context, now_s: float) -> Taken:
        """Take one message in; `now_s` is monotonic."""
        if names.is_state(context.topic):
            return Taken(Decoded(is_event=True))  # of another host application
        spoken = names.read(context.topic)
        if context.is_retained:
            return Taken(unreadable(Unreadable("retained", "the specification allows no retained message of a node")))
        if spoken is None:
            return Taken(unreadable(Unreadable("bad_topic", "not spBv1.0/{group}/{verb}/{node}[/{device}]")))
        if spoken.verb in ("NCMD", "DCMD"):
            return Taken(Decoded(is_event=True))  # a command, our own among them
        try:
            payload = unpack(content)
        except Unreadable as error:
            return Taken(unreadable(error))
        return self._VERBS[spoken.verb](self, _Said(spoken, payload, _hash(context.topic, content), context, now_s))

    def birth(self, key: Key, device: str | None) -> Birth | None:
        """Give what a node, or a device of it, declared; None: it is not online."""
        session = self._nodes.get(key, _UNKNOWN)
        return session.births.get(device or NODE) if session.is_online else None

    def changes(self) -> dict[Key, Session | None]:
        """Give what `commit` will change: sessions as they are now, None for one that will be forgotten."""
        new = Counts(key.tenant for key in self._changed if key not in self._nodes)
        forgotten = self._unheard(self._nodes, len(self._nodes) + new.total() - MAX_NODES)
        for tenant, number in new.items():
            mine = self._of.get(tenant, {})
            forgotten += self._unheard(mine, len(mine) + number - MAX_OF_TENANT)
        return {**dict.fromkeys(forgotten), **self._changed}

    def _unheard(self, nodes: Mapping[Key, object], excess: int) -> list[Key]:
        """Give so many that were not heard for longest."""
        return list(islice((key for key in nodes if key not in self._changed), excess)) if excess > 0 else []

    def commit(self) -> None:
        """Let what was taken since the last one hold."""
        for key, session in self.changes().items():
            before = self._nodes.pop(key, _UNKNOWN)
            mine = self._of.setdefault(key.tenant, {})
            mine.pop(key, None)
            self.online -= before.is_online
            if session is not None:
                self.online += session.is_online
                self._nodes[key] = session
                mine[key] = None
            self._plan(key, session or _UNKNOWN)
        self._changed = {}

    def rollback(self) -> None:
        """Forget what was taken since the last commit."""
        self._changed = {}

    def due(self, now_s: float) -> tuple[list[str], dict[str, Gap]]:
        """Give the topics on which births are to be asked for now, and gaps by node that became certain. It holds."""
        gaps: dict[str, Gap] = {}
        while (first := self._gaps.first()) is not None and first[0] <= now_s:
            session = self._nodes[first[1]]
            if (gap := session.give_up(now_s)) is not None:
                gaps[first[1].node] = gap
            self._plan(first[1], session)
        topics: list[str] = []
        while (first := self._asks.first()) is not None and first[0] <= now_s and self._may_ask(now_s):
            self._nodes[first[1]].ask(now_s)
            self._plan(first[1], self._nodes[first[1]])
            topics.append(names.command(first[1].node))
        return topics, gaps

    def next_due_s(self) -> float | None:
        """Give when `due` has something to do; None: never, unless a message comes."""
        return min((first[0] for first in (self._gaps.first(), self._asks.first()) if first is not None), default=None)

    def _plan(self, key: Key, session: Session) -> None:
        self._gaps.plan(key, session.gap_due_s)
        self._asks.plan(key, session.ask_due_s)

    def _may_ask(self, now_s: float) -> bool:
        self._allowed = min(float(ASKS_PER_S), self._allowed + (now_s - self._allowed_s) * ASKS_PER_S)
        self._allowed_s = now_s
        if self._allowed < 1.0:
            return False
        self._allowed -= 1.0
        return True

    def _session(self, said: _Said) -> Session:
        """Give the session of the node that speaks, to be changed."""
        key = Key(said.context.sender, said.spoken.node_name)
        found = self._changed.get(key)
        if found is None:
            found = self._changed[key] = self._nodes.get(key, _UNKNOWN).fork()
            found.reorder_s = self._reorder_s
        return found

    # -- verbs -----------------------------------------------------------------------------------------------------

    def _node_birth(self, said: _Said) -> Taken:
        session, node = self._session(said), said.spoken.node_name
        number = said.payload.seq % SEQUENCE
        if session.is_online and session.asked_s is None and session.birth == said.hash:
            return _repeated()
        if said.is_dated and session.is_repeated(number, said.hash, is_dated=True) and session.birth != said.hash:
            return _repeated()
        gone = {f"{node}/{device}": False for device in session.devices}
        session.be_born(number, death_number(said.payload), said.hash, declared(said.payload))
        return said.read(session, gone | {node: True}, is_birth=True)

    def _device_birth(self, said: _Said) -> Taken:
        session, device = self._session(said), said.spoken.device
        if not session.is_online or device is None:
            return said.refuse_unborn(session)
        if said.is_repeated(session):
            return _repeated()
        if not session.take(said.number(session), said.hash, said.now_s):
            return said.read(session, {}, is_birth=True)
        if device not in session.births and len(session.births) > MAX_DEVICES:
            detail = f"more than {MAX_DEVICES} devices of one edge node"
            return Taken(unreadable(Unreadable("too_large", detail)))
        session.declare(device, declared(said.payload))
        return said.read(session, {said.spoken.name: True}, is_birth=True)

    def _data(self, said: _Said) -> Taken:
        session = self._session(said)
        if said.is_repeated(session):
            return _repeated()
        is_ours = session.is_online and session.take(said.number(session), said.hash, said.now_s)
        if (said.spoken.device or NODE) not in session.births:
            return said.refuse_unborn(session)
        return said.read(session, {}, is_birth=False, knows_aliases=is_ours)

    def _device_death(self, said: _Said) -> Taken:
        session = self._session(said)
        if not session.is_online or said.spoken.device is None:
            return said.refuse_unborn(session)
        if said.is_repeated(session) or not session.take(said.number(session), said.hash, said.now_s):
            return _repeated()
        session.lose(said.spoken.device)
        return Taken(Decoded(is_event=True, presence={said.spoken.name: False}))

    def _node_death(self, said: _Said) -> Taken:
        session, node = self._session(said), said.spoken.node_name
        number, born = death_number(said.payload), session.death_number
        if not session.is_online or (number is not None and born is not None and _is_older(number, born)):
            return _repeated()  # the will of an earlier session, delivered late
        gone = {f"{node}/{device}": False for device in session.devices}
        session.die()
        return Taken(Decoded(is_event=True, presence=gone | {node: False}))

    _VERBS: dict[str, Callable[[Sessions, _Said], Taken]] = {
        "NBIRTH": _node_birth,
        "DBIRTH": _device_birth,
        "NDATA": _data,
        "DDATA": _data,
        "NDEATH": _node_death,
        "DDEATH": _device_death,
    }


@dataclass(slots=True, frozen=True)
class _Said:
    """A message, read as far as it can be without its session."""

    spoken: Spoken
    payload: Any
    hash: int
    context: Context
    now_s: float

    @property
    def is_dated(self) -> bool:
        """Whether its sender had a clock: the same content is the same message then."""
        return bool(self.payload.timestamp >= DATED_MS)

    def number(self, session: Session) -> int:
        """Give its number; one without is taken for the next one."""
        return int(self.payload.seq) % SEQUENCE if self.payload.HasField("seq") else session.expected

    def is_repeated(self, session: Session) -> bool:
        return session.is_repeated(self.number(session), self.hash, is_dated=self.is_dated)

    def read(self, session: Session, presence: dict[str, bool], *, is_birth: bool, knows_aliases: bool = True) -> Taken:
        metrics = Metrics(self.context, self.spoken, self.payload)
        metrics.take(session if knows_aliases else _UNKNOWN, is_birth=is_birth)
        session.is_wanted |= metrics.has_unknown_alias
        metrics.decoded.is_event = not metrics.decoded.records and not metrics.decoded.faults
        metrics.decoded.presence = presence
        return Taken(metrics.decoded)

    def refuse_unborn(self, session: Session) -> Taken:
        session.is_wanted = True
        detail = f"{self.spoken.name} has sent no birth that is known here; one is asked for"
        return Taken(unreadable(Unreadable("not_born", detail)))


_UNKNOWN = Session()


def _repeated() -> Taken:
    return Taken(Decoded(is_event=True), is_repeated=True)


def _is_older(number: int, born: int) -> bool:
    """Tell whether a death belongs to a session before: bdSeq counts to 255 and begins anew."""
    return 0 < (born - number) % SEQUENCE < SEQUENCE // 2


def _hash(topic: str, content: bytes) -> int:
    return int.from_bytes(
        blake2b(topic.encode(errors="replace") + b"\0" + content, digest_size=8).digest(), signed=True
    )
