"""The protocols by name: an explicit list, filled by hand, so that a reader sees all of them at once.

Only declarations live here: a service imports the decoder of a protocol when the first message of it comes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wire.claims import FAMILIES

if TYPE_CHECKING:
    from ingest.protocols.base import Decoder, Host
    from wire.errors import HeadwaterError


class Refusal(NamedTuple):
    """An error as the clients of another system expect it."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Protocol:
    """A payload format: who decodes it, in which service, and how HTTP names it."""

    name: str  # as in `/v1/telemetry/{name}` and `devices/{id}/telemetry/{name}`
    service: str  # the ingestion service that runs it: `headwater serve ingest --protocol {service}`
    decoder: str  # `module:function` below this package, a Decoder
    media_types: tuple[str, ...] = ()  # the Content-Types that `POST /v1/telemetry` takes for it
    is_typed: bool = False  # its numbers say whether they are integers
    doors: str = ""  # `module:function` that adds the paths its own clients post to; see ingest.door
    paths: tuple[str, ...] = ()  # those paths, or what they begin with where they end in `/`
    refusal: str = ""  # `module:function` that words an error for one of those paths; else it is a problem document
    states: tuple[str, ...] = ()  # how its own topics end that hold a state: retained, they are no old data
    host: str = ""  # `module:function` that opens, with a folder, the Host by which one process decodes all, in order

    @property
    def topics(self) -> tuple[str, ...]:
        """Filters of the topics its devices have when nobody configured others; empty: none can be claimed for it."""
        family = FAMILIES.get(self.name)
        return family.up + family.down if family else ()

    @cached_property
    def decode(self) -> Decoder:
        """Give the decoder."""
        decoder: Decoder = _load(self.decoder)
        return decoder

    def hosted_by(self, host: Host) -> Protocol:
        """Give the protocol as it is decoded by a host."""
        hosted = replace(self)
        hosted.__dict__["decode"] = host.decode  # in place of the cached one
        return hosted

    def open_host(self, folder: Path) -> Host:
        """Open its host, which keeps its state in a folder."""
        host: Host = _load(self.host)(folder)
        return host

    @cached_property
    def add_doors(self) -> Callable[..., None]:
        """Give what adds the paths of its own clients."""
        adder: Callable[..., None] = _load(self.doors)
        return adder

    @cached_property
    def word(self) -> Callable[[HeadwaterError, str], Refusal]:
        """Give what words an error for one of its paths."""
        word: Callable[[HeadwaterError, str], Refusal] = _load(self.refusal)
        return word


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("json", "json", "json.decoder:decode", ("application/json", "text/json")),
        Protocol("ndjson", "json", "json.decoder:decode_lines", ("application/x-ndjson", "application/ndjson")),
        Protocol("cbor", "cbor", "cbor.decoder:decode", ("application/cbor",), is_typed=True),
        Protocol(
            "msgpack",
            "msgpack",
            "msgpack.decoder:decode",
            ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack"),
            is_typed=True,
        ),
        Protocol(
            "thingsboard",
            "thingsboard",
            "thingsboard.decoder:decode",
            doors="thingsboard.doors:add_doors",
            paths=("/api/v1/",),
        ),
        Protocol("senml", "senml", "senml.decoder:decode", ("application/senml+json",)),
        Protocol("senml-cbor", "senml", "senml.decoder:decode_cbor", ("application/senml+cbor",)),
        Protocol(
            "line",
            "line",
            "line.decoder:decode",
            is_typed=True,
            doors="line.doors:add_doors",
            paths=("/api/v2/write", "/write", "/query", "/ping", "/health", "/ready"),
            refusal="line.answers:refusal",
        ),
        Protocol(
            "otlp",
            "otlp",
            "otlp.decoder:decode",
            is_typed=True,
            doors="otlp.doors:add_doors",
            paths=("/v1/metrics",),
            refusal="otlp.answers:refusal",
        ),
        Protocol(
            "prometheus",
            "prometheus",
            "prometheus.decoder:decode",
            is_typed=True,
            doors="prometheus.doors:add_doors",
            paths=("/api/v1/write",),
            refusal="prometheus.answers:refusal",
        ),
        Protocol("tasmota", "tasmota", "tasmota.decoder:decode", states=("/LWT",)),
        Protocol("owntracks", "owntracks", "owntracks.decoder:decode"),
        Protocol("shelly", "shelly", "shelly.decoder:decode", states=("/online",)),
        Protocol("zigbee2mqtt", "zigbee2mqtt", "zigbee2mqtt.decoder:decode", states=("/availability",)),
        Protocol(
            "sparkplug",
            "sparkplug",
            "sparkplug.decoder:decode",
            is_typed=True,
            host="sparkplug.host:SparkplugHost",
        ),
        Protocol("chirpstack", "lorawan", "lorawan.decoder:decode_chirpstack", doors="lorawan.doors:add_chirpstack"),
        Protocol("tts", "lorawan", "lorawan.decoder:decode_tts", doors="lorawan.doors:add_tts"),
    )
}
SERVICES = tuple(dict.fromkeys(protocol.service for protocol in PROTOCOLS.values()))  # `json` first: it always runs


MAX_TOPICS = 20_000  # whose service is remembered: telling it costs more than the rest of dividing a batch


@lru_cache(MAX_TOPICS)
def service_of(topic: str) -> str:
    """Give the service that a topic's messages go to; what nobody claims goes to the first, which says so."""
    protocol = PROTOCOLS.get(topic.rpartition("/telemetry/")[2])
    return protocol.service if protocol is not None else SERVICES[0]


def served_by(service: str) -> dict[str, Protocol]:
    """Give the protocols that one ingestion service runs."""
    return {name: protocol for name, protocol in PROTOCOLS.items() if protocol.service == service}


def _load(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
