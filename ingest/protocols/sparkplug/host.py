"""The host application's side of Sparkplug: decodes messages in their sessions, asks for births."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from chassis import logs, settings
from chassis.metrics import Counter, Gauge
from ingest.config import IngestConfig
from ingest.protocols.base import Answer, Context, Decoded, Due, Order, Worded
from ingest.protocols.flatten import Refused
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.parse import Unreadable
from ingest.protocols.sparkplug import names
from ingest.protocols.sparkplug.kept import KeptSessions
from ingest.protocols.sparkplug.messages import Payload
from ingest.protocols.sparkplug.names import Place
from ingest.protocols.sparkplug.orders import REBIRTH, REBIRTH_METRIC, Orders, Told, values_of, whose, word
from ingest.protocols.sparkplug.session import REORDER_S, Birth, Key
from ingest.protocols.sparkplug.sessions import Sessions
from wire import clock

log = logs.get(__name__)
FILE = "sparkplug.db"
BOOLEAN = 11
GAPS = Counter("headwater_ingest_sparkplug_gaps", "Gaps in the numbers of edge nodes' messages")
ASKED = Counter("headwater_ingest_sparkplug_rebirths", "Births that were asked for")
REPEATED = Counter("headwater_ingest_sparkplug_repeated", "Messages that came a second time, or of an ended session")
FORGOTTEN = Counter("headwater_ingest_sparkplug_forgotten", "Edge nodes beyond a limit whose session was forgotten")
ONLINE = Gauge("headwater_ingest_sparkplug_online", "Edge nodes whose session goes on", multiprocess_mode="livesum")


def open_host(folder: Path) -> SparkplugHost:
    """Open the host with the settings of its service."""
    return SparkplugHost(folder, settings.load(IngestConfig).sparkplug_reorder_ms / 1000)


class SparkplugHost:
    """A Host; see `ingest.protocols.base`."""

    def __init__(self, folder: Path, reorder_s: float = REORDER_S) -> None:
        self._kept = KeptSessions(folder / FILE)
        self._sessions = Sessions(self._kept.sessions, reorder_s)
        self._orders = Orders(self._kept.orders)
        self._told: list[Told] = []  # since the last commit

    def decode(self, content: bytes, context: Context) -> Decoded:
        """Decode a message in the session of its edge node."""
        if context.transport != "mqtt":  # the broker is what lets only its sender speak on a topic
            return unreadable(Unreadable("unsupported", "Sparkplug comes by MQTT only, on its own topics"))
        taken = self._sessions.take(content, context, time.monotonic())
        if taken.is_repeated:
            REPEATED.inc()
        elif self._orders:
            self._note(context, taken.decoded)
        return taken.decoded

    def commit(self) -> None:
        """Keep what changed. Raises Unavailable."""
        changes = self._sessions.changes()
        if changes:
            self._kept.save(changes)
            if forgotten := sum(session is None for session in changes.values()):
                FORGOTTEN.inc(forgotten)
                log.warning("sparkplug_nodes_forgotten", nodes=forgotten)
            self._sessions.commit()
            ONLINE.set(self._sessions.online)
        told, self._told = self._told, []
        if further := self._orders.heed(told):
            self._kept.save_orders(further)

    def rollback(self) -> None:
        """Forget what changed since the last commit."""
        self._sessions.rollback()
        self._told = []

    def word(self, order: Order) -> Worded | Answer | None:
        """Word a command as NCMD or DCMD."""
        places = whose(order)
        if not places:
            return Answer(order.id, order.device, error=f"bad_name: {order.device} has no name spb:group/node")
        for key, place in places:
            birth = self._sessions.birth(key, None if order.name == REBIRTH else place.device)
            if birth is not None:
                return self._word(order, (key, place), birth)
        return None

    def _word(self, order: Order, at: tuple[Key, Place], birth: Birth) -> Worded | Answer:
        now_ns = clock.now_ns()
        try:
            worded, pending = word(order, at, birth, now_ns // clock.NS_PER_MS)
        except Refused as error:
            return Answer(order.id, order.device, error=f"{error.code}: {error.detail}")
        self._kept.save_orders(self._orders.add(pending, now_ns))
        return worded

    @property
    def has_answers(self) -> bool:
        """See Host."""
        return self._orders.has_answers

    def answers(self) -> list[Answer]:
        """Give what was told back of commands."""
        return self._orders.answers()

    def forget(self, ids: Collection[str]) -> None:
        """Wait for the end of these commands no more. Raises Unavailable."""
        if known := self._orders.forget(ids):
            self._kept.save_orders(dict.fromkeys(known))

    def _note(self, context: Context, decoded: Decoded) -> None:
        spoken = names.read(context.topic)
        if spoken is None:
            return
        key, values = Key(context.sender, spoken.node_name), values_of(decoded.records)
        is_birth = spoken.verb == "NBIRTH"
        if values or is_birth:
            self._told.append((key, spoken.device, values, is_birth))

    def due(self) -> Due:
        """Give the births to be asked for now."""
        now_s = time.monotonic()
        topics, gaps = self._sessions.due(now_s)
        for node, gap in gaps.items():
            GAPS.inc()
            log.warning("sparkplug_gap", node=node, expected=gap.expected, got=gap.got)
        ASKED.inc(len(topics))
        next_s = self._sessions.next_due_s()
        return Due([(topic, _rebirth()) for topic in topics], 0.0 if next_s is None else max(0.05, next_s - now_s))

    def close(self) -> None:
        """Close the file."""
        self._kept.close()


def _rebirth() -> bytes:
    """Give the command by which an edge node is asked for its birth (Sparkplug 3.0, section 6.4.23)."""
    payload = Payload(timestamp=clock.now_ns() // clock.NS_PER_MS)
    metric = payload.metrics.add()
    metric.name, metric.datatype, metric.boolean_value = REBIRTH_METRIC, BOOLEAN, True
    content: bytes = payload.SerializeToString()
    return content
