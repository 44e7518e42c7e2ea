"""The HTTP face of an ingestion service: telemetry of devices, batches of bridges. Parses, calls, renders."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, wraps
from typing import Any

import msgspec
from flask import Response, request
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header

from chassis.web import Api, Call, answer, inflate, read_raw_body
from ingest.arrivals import Arrivals
from ingest.framing import decode_batch, encode_verdict
from ingest.gate import Gate, Known
from ingest.message import Message
from ingest.protocols import Protocol
from ingest.protocols.base import MAX_INFLATED_BYTES
from ingest.quarantine import WAITS, Item
from ingest.reports import AuditEntry, Reports
from ingest.service import IngestService, Receipt
from ingest.turns import LARGE_BYTES, Turns
from wire import clock, errors
from wire.devices import parse_bearer

MAX_INTERNAL_BYTES = 16 * 1024 * 1024  # a bridge's batch: 1 MiB of payloads by default, more when it is so configured
FIRST_SERVER_ERROR = 500
CERTIFICATE = "HTTP_X_CLIENT_CERTIFICATE"  # escaped PEM, set or taken away by the gateway

Handler = Callable[[Call], Any]


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
    door = _Door(service, gate, reports)
    answers = {202: ReceiptModel}

    @api.route("POST", "/v1/telemetry", "own", answers=answers)
    @door.counting
    def post_telemetry(call: Call) -> Response:
        """Accept telemetry; the protocol is told by Content-Type."""
        device = door.authenticate(_credential(), call)
        return door.accept(device, _protocol_of_media(service.protocols))

    @api.route("POST", "/v1/telemetry/<protocol>", "own", answers=answers)
    @door.counting
    def post_protocol_telemetry(call: Call) -> Response:
        """Accept telemetry of the protocol named by the path."""
        device = door.authenticate(_credential(), call)
        protocol = service.protocols.get(call.path["protocol"])
        if protocol is None:
            raise errors.BadRequest(f"no protocol {call.path['protocol'][:64]!r} here", code="unsupported")
        return door.accept(device, protocol)

    if "thingsboard" in service.protocols:

        @api.route("POST", "/api/v1/<token>/telemetry", "own")
        @door.counting
        def post_thingsboard_telemetry(call: Call) -> Response:
            """Accept telemetry as ThingsBoard does: the token is `{device_id}.{secret}`, the answer an empty 200."""
            device = door.authenticate(parse_bearer(call.path["token"]), call)
            accepted = door.accept(device, service.protocols["thingsboard"])
            return Response(status=200) if accepted.status_code < FIRST_SERVER_ERROR else accepted

    @api.route("POST", "/internal/batch", "service")
    def post_batch(_call: Call) -> Response:
        """Accept a bridge's batch."""
        request.max_content_length = MAX_INTERNAL_BYTES
        try:
            batch = decode_batch(request.get_data(cache=False))
        except msgspec.DecodeError as error:
            raise errors.BadRequest(f"not a batch: {error}", code="bad_syntax") from None
        return Response(encode_verdict(service.accept_batch(batch)), mimetype="application/json")


class _Door:
    """What the devices' routes share."""

    def __init__(self, service: IngestService, gate: Gate, reports: Reports) -> None:
        self._service = service
        self._gate = gate
        self._reports = reports
        self._arrivals = Arrivals()
        self._turns = Turns()

    def counting(self, handler: Handler) -> Handler:
        """Count requests that are refused, whatever refused them."""

        @wraps(handler)
        def counted(call: Call) -> Any:
            try:
                return handler(call)
            except (errors.HeadwaterError, HTTPException) as error:
                status = error.status if isinstance(error, errors.HeadwaterError) else error.code or 0
                if status < FIRST_SERVER_ERROR and not isinstance(error, _NothingAccepted):
                    self._service.refuse(call.path.get("protocol", "json"))
                raise

        return counted

    def authenticate(self, presented: tuple[str, str] | None, call: Call) -> Known:
        """Check the device's credential; what fails for an existing device is noted for the audit."""
        certificate = request.environ.get(CERTIFICATE, "") if presented is None else ""
        if presented is None and not certificate:
            raise errors.Unauthorized("a device presents Authorization: Bearer {device_id}.{secret}, or Basic")
        device_id, secret = presented or ("", "")
        try:
            if certificate:
                device, credential_id = self._gate.authenticate_certificate(certificate, call.remote_ip)
            else:
                device, credential_id = self._gate.authenticate(device_id, secret, call.remote_ip)
        except (errors.Unauthorized, errors.Forbidden) as error:
            if self._gate.is_cached(device_id):  # a stranger's guesses of ids would fill the audit
                self._note(device_id, "telemetry.credential_refused", device_id, error.detail, call)
            raise
        named = request.args.get("device", device.id) if request.environ.get("QUERY_STRING") else device.id
        if named != device.id:
            self._reports.note_seen(device.id, clock.now_ns(), credential_id)
            device = self._find_child(device, named, call)
        self._reports.note_seen(device.id, clock.now_ns(), credential_id)
        return device

    def _find_child(self, gateway: Known, named: str, call: Call) -> Known:
        found = self._service.children.find([(gateway, named)])
        code = found.refused.get((gateway.id, named))
        if code is None:
            return found.known[gateway.id, named]
        if code == "peer_unavailable":
            raise errors.PeerUnavailable(f"{named[:64]} is not cached and the registry is away")
        detail = f"{gateway.id} may not speak for {named[:64]}"
        if code == "identity_mismatch":
            self._note(gateway.id, "telemetry.identity_mismatch", named[:64], detail, call)
        raise errors.Forbidden(detail, code=code)

    def accept(self, device: Known, protocol: Protocol) -> Response:
        """Take the body in and answer for it; large ones in turn."""
        content, is_gzip = read_raw_body()
        if is_gzip:
            with suppress(errors.TooLarge):
                content, is_gzip = inflate(content, LARGE_BYTES), False
        if not is_gzip and len(content) <= LARGE_BYTES:
            return self._keep(device, protocol, content)
        with self._turns.take():
            return self._keep(device, protocol, inflate(content, MAX_INFLATED_BYTES) if is_gzip else content)

    def _keep(self, device: Known, protocol: Protocol, content: bytes) -> Response:
        received_ns = self._arrivals.take(len(content))
        source = request.environ.get("CONTENT_TYPE", "")[:128]
        message = Message(device, protocol, content, received_ns, "http", source)
        return _render(self._service.accept(message))

    def _note(self, actor: str, action: str, named: str, detail: str, call: Call) -> None:
        tenant = self._gate.tenant_of(actor)
        entry = AuditEntry(f"device:{actor}", action, f"device:{named}", detail, call.remote_ip, tenant)
        self._reports.note_attempt(entry)


class _NothingAccepted(errors.HeadwaterError):
    """All of a request is in the quarantine: durable, counted there, and told to the sender as its fault."""


def _render(receipt: Receipt) -> Response:
    quarantined = [_shown(item) for item in receipt.quarantined]
    if receipt.accepted or receipt.quarantined[0] == WAITS:  # held data is kept, and will be stored
        return answer({"accepted": receipt.accepted, "quarantined": quarantined}, 202)
    first = receipt.quarantined[0]
    fields = [item.field for item in receipt.quarantined if item.field]
    error = _NothingAccepted(first.detail, code=first.code, fields=fields, accepted=0, quarantined=quarantined)
    error.status = errors.REASONS.get(first.code, FIRST_SERVER_ERROR)
    raise error


def _shown(item: Item) -> dict[str, Any]:
    shown = {"index": item.record or 0, "code": item.code, "detail": item.detail}
    return shown | {"field": item.field} if item.field is not None else shown


def _credential() -> tuple[str, str] | None:
    header = request.environ.get("HTTP_AUTHORIZATION", "")
    if header[:7].lower() == "bearer ":
        return parse_bearer(header[7:].strip())
    given = request.authorization
    if given is None or given.type != "basic" or not given.username:
        return None
    return given.username, given.password or ""


@lru_cache(256)
def _media_of(content_type: str) -> str:
    return parse_options_header(content_type)[0].lower()


def _protocol_of_media(protocols: dict[str, Protocol]) -> Protocol:
    media = _media_of(request.environ.get("CONTENT_TYPE", ""))
    for protocol in protocols.values():
        if media in protocol.media_types or (not media and protocol.name == "json"):
            return protocol
    known = [media for protocol in protocols.values() for media in protocol.media_types]
    raise errors.UnsupportedMedia(f"Content-Type {media[:64]!r}; known here: {', '.join(known)}", supported=known)
