"""The host application's side of Sparkplug: decodes messages in their sessions, asks for births."""

from __future__ import annotations

import time
from pathlib import Path

from chassis import logs
from chassis.metrics import Counter, Gauge
from ingest.protocols.base import Context, Decoded, Due
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.parse import Unreadable
from ingest.protocols.sparkplug.kept import KeptSessions
from ingest.protocols.sparkplug.messages import Payload
from ingest.protocols.sparkplug.sessions import Sessions
from wire import clock

log = logs.get(__name__)
FILE = "sparkplug.db"
REBIRTH = "Node Control/Rebirth"
BOOLEAN = 11
GAPS = Counter("headwater_ingest_sparkplug_gaps", "Gaps in the numbers of edge nodes' messages")
ASKED = Counter("headwater_ingest_sparkplug_rebirths", "Births that were asked for")
REPEATED = Counter("headwater_ingest_sparkplug_repeated", "Messages that came a second time, or of an ended session")
ONLINE = Gauge("headwater_ingest_sparkplug_online", "Edge nodes whose session goes on", multiprocess_mode="livesum")


class SparkplugHost:
    """A Host; see `ingest.protocols.base`."""

    def __init__(self, folder: Path) -> None:
        self._kept = KeptSessions(folder / FILE)
        self._sessions = Sessions(self._kept.load())

    def decode(self, content: bytes, context: Context) -> Decoded:
        """Decode a message in the session of its edge node."""
        if context.transport != "mqtt":  # the broker is what lets only its sender speak on a topic
            return unreadable(Unreadable("unsupported", "Sparkplug comes by MQTT only, on its own topics"))
        taken = self._sessions.take(content, context, time.monotonic())
        if taken.is_repeated:
            REPEATED.inc()
        return taken.decoded

    def commit(self) -> None:
        """Keep what changed. Raises Unavailable."""
        changes = self._sessions.changes()
        if changes:
            self._kept.save(changes)
            self._sessions.commit()
            ONLINE.set(self._sessions.online)

    def rollback(self) -> None:
        """Forget what changed since the last commit."""
        self._sessions.rollback()

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
    metric.name, metric.datatype, metric.boolean_value = REBIRTH, BOOLEAN, True
    content: bytes = payload.SerializeToString()
    return content
