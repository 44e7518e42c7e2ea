"""What all doors of devices share over HTTP: who sends, taking the body in, the answer. Each has paths of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from flask import Response, request
from werkzeug.exceptions import HTTPException

from chassis.bodies import inflate, read_raw_body
from chassis.guessing import DeviceGuesses
from chassis.web import Call, answer
from ingest.arrivals import Arrivals
from ingest.gate import Gate, Known
from ingest.message import Message
from ingest.protocols import Protocol
from ingest.protocols.base import MAX_INFLATED_BYTES
from ingest.quarantine import HELD, Item
from ingest.reports import AuditEntry, Reports
from ingest.service import IngestService, Receipt
from ingest.turns import LARGE_BYTES, Turns
from wire import clock, errors
from wire.devices import parse_bearer

FIRST_SERVER_ERROR = 500
TENANT_OF = "headwater.tenant"  # of the device that proved itself, for the count of what is refused
CERTIFICATE = "HTTP_X_CLIENT_CERTIFICATE"  # escaped PEM, set or taken away by the gateway

Handler = Callable[[Call], Any]


class Door:
    """What the devices' routes share; thread-safe."""

    def __init__(self, service: IngestService, gate: Gate, reports: Reports) -> None:
        self._service = service
        self._gate = gate
        self._reports = reports
        self._guesses = DeviceGuesses()
        self._arrivals = Arrivals()
        self._turns = Turns()
        self._usual = next(iter(service.protocols), "")  # what a request that names no protocol counts as

    def counting(self, handler: Handler) -> Handler:
        """Count requests that are refused, whatever refused them."""

        @wraps(handler)
        def counted(call: Call) -> Any:
            try:
                return handler(call)
            except (errors.HeadwaterError, HTTPException) as error:
                status = error.status if isinstance(error, errors.HeadwaterError) else error.code or 0
                if status < FIRST_SERVER_ERROR and not isinstance(error, Quarantined):
                    self._service.refuse(call.path.get("protocol", self._usual), request.environ.get(TENANT_OF, ""))
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
            is_known = self._gate.is_cached(device_id)
            if presented is not None and isinstance(error, errors.Unauthorized):
                self._guesses.wrong(device_id if is_known else "", call.remote_ip)
            if is_known:  # a stranger's guesses of ids would fill the audit
                self._note(device_id, "telemetry.credential_refused", device_id, error.detail, call)
            raise
        request.environ[TENANT_OF] = device.tenant
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
        """Take the body in and answer for it, as all doors do that no client of another system knocks at."""
        return render(self.take(device, protocol))

    def take(self, device: Known, protocol: Protocol, source: str | None = None) -> Receipt:
        """Take the body in, large ones in turn; `source` is what the decoder is told instead of the Content-Type.

        Raises what `IngestService.accept` and `read_raw_body` raise.
        """
        content, is_gzip = read_raw_body()
        source = request.environ.get("CONTENT_TYPE", "")[:128] if source is None else source
        if is_gzip:
            with suppress(errors.TooLarge):
                content, is_gzip = inflate(content, LARGE_BYTES), False
        if not is_gzip and len(content) <= LARGE_BYTES:
            return self._keep(device, protocol, content, source)
        with self._turns.take():
            return self._keep(device, protocol, inflate(content, MAX_INFLATED_BYTES) if is_gzip else content, source)

    def _keep(self, device: Known, protocol: Protocol, content: bytes, source: str) -> Receipt:
        received_ns = self._arrivals.take(len(content))
        return self._service.accept(Message(device, protocol, content, received_ns, "http", source))

    def _note(self, actor: str, action: str, named: str, detail: str, call: Call) -> None:
        tenant = self._gate.tenant_of(actor)
        entry = AuditEntry(f"device:{actor}", action, f"device:{named}", detail, call.remote_ip, tenant)
        self._reports.note_attempt(entry)


def in_words(word: Callable[[errors.HeadwaterError], Any]) -> Callable[[Handler], Handler]:
    """Have what a handler raises said by `word`, in the words of the clients that come by its path."""

    def wrap(handler: Handler) -> Handler:
        @wraps(handler)
        def worded(call: Call) -> Any:
            try:
                return handler(call)
            except errors.HeadwaterError as error:
                return word(error)
            except HTTPException as error:
                told = errors.HeadwaterError(error.description or error.name)
                told.status = error.code or told.status
                return word(told)

        return worded

    return wrap


class Quarantined(errors.HeadwaterError):
    """What is at fault in a request is in the quarantine: durable, counted there, and told to the sender."""


def render(receipt: Receipt) -> Response:
    """Answer 202 when something is kept, also for a device that is held; else raise what is at fault."""
    quarantined = [shown(item) for item in receipt.quarantined]
    is_held = any(item.code == HELD for item in receipt.quarantined)  # held data is kept, and will be stored
    if receipt.accepted or is_held or not quarantined:  # nothing at all: a message that rightly holds no reading
        return answer({"accepted": receipt.accepted, "quarantined": quarantined}, 202)
    first = receipt.quarantined[0]
    fields = [item.field for item in receipt.quarantined if item.field]
    error = Quarantined(first.detail, code=first.code, fields=fields, accepted=0, quarantined=quarantined)
    error.status = errors.REASONS.get(first.code, FIRST_SERVER_ERROR)
    raise error


def shown(item: Item) -> dict[str, Any]:
    """Give what a sender is told of an item in the quarantine."""
    told = {"index": item.record or 0, "code": item.code, "detail": item.detail}
    return told | {"field": item.field} if item.field is not None else told


def credential() -> tuple[str, str] | None:
    """Give device id and secret as the Authorization header presents them; None without one that can be read."""
    header = request.environ.get("HTTP_AUTHORIZATION", "")
    if header[:7].lower() == "bearer ":
        return parse_bearer(header[7:].strip())
    given = request.authorization
    if given is None or given.type != "basic" or not given.username:
        return None
    return given.username, given.password or ""
