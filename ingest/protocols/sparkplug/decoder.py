"""A single Sparkplug message, out of its session: what it says by itself, as when it is replayed. Pure."""

from __future__ import annotations

from ingest.protocols.base import Context, Decoded
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.parse import Unreadable
from ingest.protocols.sparkplug import names
from ingest.protocols.sparkplug.metrics import Metrics
from ingest.protocols.sparkplug.packed import unpack
from ingest.protocols.sparkplug.session import Session


def decode(content: bytes, context: Context) -> Decoded:
    """Decode metrics that carry their names; a message in its session is for `sparkplug.host`."""
    if names.is_state(context.topic):
        return Decoded(is_event=True)
    spoken = names.read(context.topic)
    if spoken is None:
        return unreadable(Unreadable("bad_topic", "not spBv1.0/{group}/{verb}/{node}[/{device}]"))
    if spoken.verb in names.COMMANDS or spoken.verb in names.DEATHS:
        return Decoded(is_event=True)
    try:
        metrics = Metrics(context, spoken, unpack(content))
    except Unreadable as error:
        return unreadable(error)
    metrics.take(Session(), is_birth=False)
    return metrics.decoded
