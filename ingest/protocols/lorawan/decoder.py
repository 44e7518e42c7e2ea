"""Events of LoRaWAN network servers to records. Pure."""

from __future__ import annotations

from ingest.protocols.base import Context, Decoded
from ingest.protocols.lorawan.chirpstack import ChirpStack
from ingest.protocols.lorawan.tts import TheThingsStack
from ingest.protocols.lorawan.uplinks import Events


def decode_chirpstack(content: bytes, context: Context) -> Decoded:
    """Decode an event of ChirpStack; which it is tells the end of the topic, or `event` of the path."""
    events = Events(context)
    return events.decode(content, ChirpStack(events, context.topic).read)


def decode_tts(content: bytes, context: Context) -> Decoded:
    """Decode an event of The Things Stack; which it is tells its body."""
    events = Events(context)
    return events.decode(content, TheThingsStack(events, context.topic).read)
