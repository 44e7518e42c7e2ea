"""The protocols by name, with their code: only the service that runs one imports its decoder."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wire.declared import DECLARED
from wire.protocols import Declaration

if TYPE_CHECKING:
    from ingest.protocols.base import Decoder, Host
    from wire.errors import HeadwaterError


class Refusal(NamedTuple):
    """An error as the clients of another system expect it."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class Protocol(Declaration):
    """A declared protocol and the code that it names."""

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


PROTOCOLS: dict[str, Protocol] = {name: Protocol(**vars(each)) for name, each in DECLARED.items()}
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
    return getattr(importlib.import_module(module, __name__), name)
