"""The HTTP face of an ingestion service: telemetry of devices, batches of bridges. Parses, calls, renders."""

from __future__ import annotations

from functools import lru_cache

import msgspec
from flask import Response, request
from pydantic import BaseModel
from werkzeug.http import parse_options_header

from chassis.web import Api, Call
from ingest.door import Door, credential
from ingest.framing import decode_batch, encode_verdict
from ingest.gate import Gate
from ingest.protocols import PROTOCOLS, Protocol
from ingest.reports import Reports
from ingest.service import IngestService
from wire import errors

MAX_INTERNAL_BYTES = 16 * 1024 * 1024  # a bridge's batch: 1 MiB of payloads by default, more when it is so configured


class QuarantinedModel(BaseModel):
    """A record, or one field of it, that waits in the quarantine."""

    index: int
    code: str
    detail: str
    field: str | None = None


class ReceiptModel(BaseModel):
    """What became of the readings of one request."""

    accepted: int
    quarantined: list[QuarantinedModel]


def add_routes(api: Api, service: IngestService, gate: Gate, reports: Reports) -> None:
    """Declare the routes of devices and bridges."""
    door = Door(service, gate, reports)
    answers = {202: ReceiptModel}

    @api.route("POST", "/v1/telemetry", "own", answers=answers, is_on_loop=True)
    @door.counting
    def post_telemetry(call: Call) -> Response:
        """Accept telemetry; the protocol is told by Content-Type."""
        device = door.authenticate(credential(), call)
        return door.accept(device, _protocol_of_media(service.protocols))

    @api.route("POST", "/v1/telemetry/<protocol>", "own", answers=answers, is_on_loop=True)
    @door.counting
    def post_protocol_telemetry(call: Call) -> Response:
        """Accept telemetry of the protocol named by the path."""
        device = door.authenticate(credential(), call)
        protocol = service.protocols.get(call.path["protocol"])
        if protocol is None:
            raise errors.BadRequest(f"no protocol {call.path['protocol'][:64]!r} here", code="unsupported")
        return door.accept(device, protocol)

    elsewhere = Api()
    for protocol in PROTOCOLS.values():
        if protocol.doors:
            protocol.add_doors(api if protocol.name in service.protocols else elsewhere, door, protocol)
    api.described += elsewhere.operations

    @api.route("POST", "/internal/batch", "service", callers=("bridge", "ingest"))
    def post_batch(_call: Call) -> Response:
        """Accept a batch of a bridge, or of a protocol's own MQTT door."""
        request.max_content_length = MAX_INTERNAL_BYTES
        try:
            batch = decode_batch(request.get_data(cache=False))
        except msgspec.DecodeError as error:
            raise errors.BadRequest(f"not a batch: {error}", code="bad_syntax") from None
        return Response(encode_verdict(service.accept_batch(batch)), mimetype="application/json")


@lru_cache(256)
def _media_of(content_type: str) -> str:
    return parse_options_header(content_type)[0].lower()


def _protocol_of_media(protocols: dict[str, Protocol]) -> Protocol:
    media = _media_of(request.environ.get("CONTENT_TYPE", ""))
    for protocol in protocols.values():
        if media in protocol.media_types or (not media and protocol.name == "json"):
            return protocol
    known = [media for protocol in PROTOCOLS.values() for media in protocol.media_types]
    raise errors.UnsupportedMedia(f"Content-Type {media[:64]!r}; known here: {', '.join(known)}", supported=known)
