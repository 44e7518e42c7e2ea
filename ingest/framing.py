"""The bridge's batches to an ingest service (`POST /internal/batch`): framing that never mixes messages."""

from __future__ import annotations

import msgspec

CONTENT_TYPE = "application/vnd.headwater.batch"


class Delivery(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One MQTT message as the bridge got it."""

    device: str
    topic: str
    payload: bytes
    received_ns: int
    mid: int = 0  # broker's message id; 0 for QoS 0
    dup: bool = False
    retain: bool = False
    is_surplus: bool = False  # of a device over its rate, and the bridge has no room to let it wait
    protocol: str = ""  # of a topic that `device` has claimed; empty: the topic is the device's own and tells it


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """Messages in receipt order, of one bridge."""

    bridge: str  # and the name of the broker's session: message ids mean nothing beyond it
    deliveries: list[Delivery]


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one message that was not simply accepted."""

    index: int  # in the batch
    end: str  # "quarantined" | "refused" | "deferred" (nothing kept: send it again later)
    code: str = ""
    detail: str = ""
    record: int | None = None  # index inside the message
    field: str | None = None  # where only this field of the record is at fault
    retry_s: float = 0.0  # of "deferred": when to send it again; 0: the bridge decides


class Saying(msgspec.Struct, frozen=True):
    """A message of the service to a device, which the bridge publishes once, at QoS 0."""

    topic: str
    payload: bytes


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer to a batch: every message not listed was accepted. Only a 200 with this body permits PUBACKs."""

    accepted: int
    endings: list[Ending] = []
    sayings: list[Saying] = []
    again_s: float = 0.0  # when the service wants to be asked again, if by an empty batch; 0: with a message


_batch_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(Batch)


def encode_batch(batch: Batch) -> bytes:
    """Encode as MessagePack."""
    return _batch_encoder.encode(batch)


def decode_batch(content: bytes) -> Batch:
    """Decode; raises msgspec.DecodeError."""
    return _batch_decoder.decode(content)


def encode_verdict(verdict: Verdict) -> bytes:
    """Encode as JSON."""
    return msgspec.json.encode(verdict)
