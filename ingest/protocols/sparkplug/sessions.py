"""All edge nodes of one ingestion service: a message goes into its node's session, and records and news come out.

Messages are taken in the order they came. What they change holds only after `commit`: a message whose records could
not be kept is delivered again, and must find its session as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ingest.protocols.base import Context, Decoded
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.parse import Unreadable
from ingest.protocols.sparkplug import names
from ingest.protocols.sparkplug.metrics import Metrics, death_number, declared
from ingest.protocols.sparkplug.names import Spoken
from ingest.protocols.sparkplug.packed import unpack
from ingest.protocols.sparkplug.session import MAX_DEVICES, SEQUENCE, Gap, Session

MAX_NODES = 20_000
ASKS_PER_S = 20  # over all nodes: 10,000 unknown ones after a restart must not all answer at once


@dataclass(slots=True)
class Taken:
    """What came of a message."""

    decoded: Decoded
    is_repeated: bool = False  # the same message as before: nothing of it is kept again


@dataclass(slots=True, frozen=True)
class Ask:
    """A birth to be asked for."""

    node: str  # external name

    @property
    def topic(self) -> str:
        """Give the topic of the request."""
        return names.command(self.node)


class Sessions:
    """Sessions by external name of the node. Not thread-safe: one after the other, in order."""

    def __init__(self, kept: Mapping[str, Session] | None = None) -> None:
        self._nodes: dict[str, Session] = dict(kept or {})
        self._changed: dict[str, Session] = {}
        self._allowed, self._allowed_s = float(ASKS_PER_S), 0.0

    def take(self, content: bytes, context: Context, now_s: float) -> Taken:
        """Take one message in; `now_s` is monotonic."""
        spoken = names.read(context.topic)
        if context.is_retained:
            return Taken(unreadable(Unreadable("retained", "the specification allows no retained message of a node")))
        if spoken is None:
            return Taken(unreadable(Unreadable("bad_topic", "not spBv1.0/{group}/{verb}/{node}[/{device}]")))
        if spoken.verb in ("NCMD", "DCMD"):
            return Taken(Decoded(is_event=True))  # a command, our own among them
        try:
            self._demand_room(spoken)
            payload = unpack(content)
        except Unreadable as error:
            return Taken(unreadable(error))
        return self._VERBS[spoken.verb](self, _Said(spoken, payload, _hash(context.topic, content), context, now_s))

    @property
    def changed(self) -> dict[str, Session]:
        """The sessions that changed since the last commit."""
        return self._changed

    def commit(self) -> dict[str, Session]:
        """Let what was taken since the last one hold; give the sessions that changed."""
        changed, self._changed = self._changed, {}
        self._nodes |= changed
        return changed

    def online(self) -> int:
        """Count the nodes whose session goes on."""
        return sum(session.is_online for session in self._nodes.values())

    def rollback(self) -> None:
        """Forget what was taken since the last commit."""
        self._changed = {}

    def due(self, now_s: float) -> tuple[list[Ask], dict[str, Gap]]:
        """Give the births to be asked for now, and the gaps by node that have become certain. It holds at once."""
        gaps: dict[str, Gap] = {}
        asks: list[Ask] = []
        for node, session in self._nodes.items():
            if (gap := session.give_up(now_s)) is not None:
                gaps[node] = gap
            if session.is_wanted and now_s >= session.next_ask_s and self._may_ask(now_s) and session.ask(now_s):
                asks.append(Ask(node))
        return asks, gaps

    def next_due_s(self) -> float | None:
        """Give when `due` has something to do; None: never, unless a message comes."""
        moments = [moment for session in self._nodes.values() for moment in _moments(session)]
        return min(moments, default=None)

    def _may_ask(self, now_s: float) -> bool:
        self._allowed = min(float(ASKS_PER_S), self._allowed + (now_s - self._allowed_s) * ASKS_PER_S)
        self._allowed_s = now_s
        if self._allowed < 1.0:
            return False
        self._allowed -= 1.0
        return True

    def _demand_room(self, spoken: Spoken) -> None:
        node = spoken.node_name
        known = self._changed.get(node) or self._nodes.get(node)
        if known is None and len(self._nodes) + len(self._changed) >= MAX_NODES:
            raise Unreadable("too_large", f"more than {MAX_NODES} edge nodes")
        devices = {} if known is None or spoken.device is None else known.devices
        if len(devices) >= MAX_DEVICES and spoken.device not in devices:
            raise Unreadable("too_large", f"more than {MAX_DEVICES} devices of one edge node")

    def _session(self, node: str) -> Session:
        """Give a node's session to be changed."""
        found = self._changed.get(node)
        if found is None:
            found = self._changed[node] = self._nodes.get(node, _UNKNOWN).fork()
        return found

    # -- verbs -----------------------------------------------------------------------------------------------------

    def _node_birth(self, said: _Said) -> Taken:
        session = self._session(said.spoken.node_name)
        if session.is_online and session.birth == said.hash:
            return _repeated()
        devices = [device for device, is_online in session.devices.items() if is_online]
        session.be_born(said.payload.seq % SEQUENCE, death_number(said.payload), said.hash)
        session.declare(None, *declared(said.payload))
        presence = {f"{said.spoken.node_name}/{device}": False for device in devices}
        return said.read(session, presence | {said.spoken.node_name: True}, is_birth=True)

    def _device_birth(self, said: _Said) -> Taken:
        session = self._session(said.spoken.node_name)
        if not session.is_online:
            return said.refuse_unborn(session)
        if session.is_repeated(said.number(session), said.hash):
            return _repeated()
        if not session.take(said.number(session), said.hash, said.now_s):
            return said.read(session, {}, is_birth=True)
        session.declare(said.spoken.device, *declared(said.payload))
        return said.read(session, {said.spoken.name: True}, is_birth=True)

    def _data(self, said: _Said) -> Taken:
        session = self._session(said.spoken.node_name)
        device = said.spoken.device
        if not session.is_online or (device is not None and not session.devices.get(device)):
            if session.is_online:
                session.take(said.number(session), said.hash, said.now_s)
            return said.refuse_unborn(session)
        if session.is_repeated(said.number(session), said.hash):
            return _repeated()
        is_ours = session.take(said.number(session), said.hash, said.now_s)
        return said.read(session, {}, is_birth=False, knows_aliases=is_ours)

    def _device_death(self, said: _Said) -> Taken:
        session = self._session(said.spoken.node_name)
        if not session.is_online or said.spoken.device is None:
            return said.refuse_unborn(session)
        if not session.take(said.number(session), said.hash, said.now_s):
            return _repeated()
        session.mark(said.spoken.device, is_online=False)
        return Taken(Decoded(is_event=True, presence={said.spoken.name: False}))

    def _node_death(self, said: _Said) -> Taken:
        session = self._session(said.spoken.node_name)
        number, born = death_number(said.payload), session.death_number
        if not session.is_online or (number is not None and born is not None and _is_older(number, born)):
            return _repeated()  # the will of an earlier session, delivered late
        devices = [device for device, is_online in session.devices.items() if is_online]
        session.die()
        of_devices = {f"{said.spoken.node_name}/{device}": False for device in devices}
        return Taken(Decoded(is_event=True, presence=of_devices | {said.spoken.node_name: False}))

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

    def number(self, session: Session) -> int:
        """Give its number; one without is taken for the next one."""
        return int(self.payload.seq) % SEQUENCE if self.payload.HasField("seq") else session.expected

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


def _moments(session: Session) -> Iterable[float]:
    if session.gap_at_s is not None:
        yield session.gap_at_s
    if session.is_wanted:
        yield session.next_ask_s


def _is_older(number: int, born: int) -> bool:
    """Tell whether a death belongs to a session before: bdSeq counts to 255 and begins anew."""
    return 0 < (born - number) % SEQUENCE < SEQUENCE // 2


def _hash(topic: str, content: bytes) -> int:
    return int.from_bytes(
        blake2b(topic.encode(errors="replace") + b"\0" + content, digest_size=8).digest(), signed=True
    )
