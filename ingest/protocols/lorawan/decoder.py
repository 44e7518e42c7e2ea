"""Events of LoRaWAN network servers to records. Pure."""

from __future__ import annotations

from ingest.protocols.base import Context, Decoded
from ingest.protocols.flatten import Refused
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.lorawan import binary
from ingest.protocols.lorawan.chirpstack import ChirpStack
from ingest.protocols.lorawan.tts import TheThingsStack
from ingest.protocols.lorawan.uplinks import Events
from ingest.protocols.parse import Unreadable, trim


def decode_chirpstack(content: bytes, context: Context) -> Decoded:
    """Decode an event of ChirpStack, JSON or Protocol Buffers; its kind ends the topic, or is `event` of the path."""
    events = Events(context)
    server = ChirpStack(events, context.topic)
    if not binary.is_binary(trim(content)):
        return events.decode(content, server.read)
    try:
        return events.decode_one(binary.read(server.kind, content), server.read)
    except (Unreadable, Refused) as error:
        return unreadable(Unreadable(error.code, error.detail))


def decode_tts(content: bytes, context: Context) -> Decoded:
    """Decode an event of The Things Stack; which it is tells its body."""
    events = Events(context)
    return events.decode(content, TheThingsStack(events, context.topic).read)
