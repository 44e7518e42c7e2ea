"""What goes over the connection to the broker, as plain values; and who deals with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from wire import clock, topics
from wire.errors import HeadwaterError
from wire.topics import DeviceTopic


@dataclass(slots=True, frozen=True)
class Inbound:
    """A message of a device: from itself, or from the gateway that speaks for it."""

    topic: DeviceTopic
    payload: bytes
    gateway: str | None = None

    @property
    def sender(self) -> str:
        """The device that the broker let in."""
        return self.gateway or self.topic.device_id


@dataclass(slots=True, frozen=True)
class Outbound:
    """A message to a device; `token` is its sender's own name for it."""

    topic: str
    payload: bytes
    token: Hashable
    qos: int = 1
    retain: bool = False
    expiry_s: int | None = None  # the broker drops it then


@dataclass(slots=True, frozen=True)
class Receipt:
    """The broker has a message; `is_heard` = somebody is subscribed to its topic, as far as the broker tells."""

    token: Hashable
    is_heard: bool


class Way(NamedTuple):
    """Where a device is told something: on its own topic, or on the one of its gateway."""

    device: str
    gateway: str = ""


class Traffic(Protocol):
    """One kind of traffic; its methods are called by the connection's thread."""

    filters: Sequence[str]  # what it hears
    found: Sequence[str]  # filters of retained messages that it wants to know of at each connect
    channels: tuple[str, ...]  # of the topics that are its own

    def begin(self, retained: Mapping[Way, bytes]) -> None:
        """A connection begins; `retained` is what the broker holds under `found`."""
        ...

    def take(self, messages: Sequence[Inbound]) -> list[tuple[Inbound, HeadwaterError]]:
        """Take messages; they are kept when this returns. Give those that are refused, with the reason."""
        ...

    def outgoing(self) -> Sequence[Outbound]:
        """Give what is to be sent now; each only once a connection."""
        ...

    def confirm(self, receipts: Sequence[Receipt]) -> None:
        """Note what the broker has."""
        ...


def notice(message: Inbound, error: HeadwaterError) -> dict[str, Any]:
    """Say why a message was refused, as on all error topics (docs/topics.md)."""
    topic = "/".join(part for part in ("devices", *message.topic) if part)
    return {
        "code": error.code,
        "detail": error.detail,
        "end": "refused",
        "index": 0,
        "field": error.fields[0] if error.fields else None,
        "time": clock.format_ns(clock.now_ns()),
        "topic": topics.child(message.gateway, topic) if message.gateway else topic,
    } | error.extra
