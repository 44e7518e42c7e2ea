"""The protocols by name: an explicit dict, filled by hand, so that a reader sees all of them at once."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.protocols.base import Decoder
from ingest.protocols.json import decoder as json
from ingest.protocols.thingsboard import decoder as thingsboard


@dataclass(slots=True, frozen=True)
class Protocol:
    """A payload format: who decodes it, in which service, and how HTTP names it."""

    name: str  # as in `/v1/telemetry/{name}` and `devices/{id}/telemetry/{name}`
    service: str  # the ingestion service that runs it: `headwater serve ingest --protocol {service}`
    decode: Decoder
    media_types: tuple[str, ...] = ()  # the Content-Types that `POST /v1/telemetry` takes for it
    is_typed: bool = False  # its numbers say whether they are integers


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("json", "json", json.decode, ("application/json", "text/json")),
        Protocol("ndjson", "json", json.decode_lines, ("application/x-ndjson", "application/ndjson")),
        Protocol("thingsboard", "json", thingsboard.decode),
    )
}


def served_by(service: str) -> dict[str, Protocol]:
    """Give the protocols that one ingestion service runs."""
    return {name: protocol for name, protocol in PROTOCOLS.items() if protocol.service == service}
