"""The HTTP face of media that come: from devices, from operators, from the bridge. Parses, calls, renders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from flask import Response, request
from pydantic import Field

from chassis.bodies import read_query
from chassis.web import Api, Call, answer
from ingest.door import Door, credential
from ingest.framing import decode_batch, encode_verdict
from ingest.gate import Known
from ingest.media.blobs import CHUNK_BYTES
from ingest.media.service import MediaService, Sent, type_named
from ingest.ports import Ports
from ingest.protocols.media.decoder import CHANNEL, DEFAULT_CHANNEL
from ingest.reports import AuditEntry
from wire import clock
from wire.devices import Model
from wire.errors import BadRequest, NotFound, UnsupportedMedia
from wire.media import MAX_MQTT_LIMIT_BYTES, Media
from wire.points import TimeNs
from wire.topics import is_device_id

MAX_BATCH_BYTES = MAX_MQTT_LIMIT_BYTES + 16 * 1024 * 1024
ANY_SIZE = 2**62  # to Flask: the service knows what the device may send
BLOB_BODY = {"type": "string", "format": "binary"}


class UploadQuery(Model):
    """What a sender may say of a blob beside its Content-Type."""

    channel: Annotated[str, Field(pattern=f"^{CHANNEL.pattern}$")] = DEFAULT_CHANNEL
    time: TimeNs | None = None
    device: str | None = None  # a gateway's child


def add_doors(api: Api, service: MediaService, door: Door, ports: Ports) -> None:
    """Declare the routes by which blobs come: from devices, from operators, from the bridge."""
    declared: dict[str, Any] = {"answers": {201: Media}, "body": BLOB_BODY, "media_type": "application/octet-stream"}

    @api.route("POST", "/v1/media", "own", **declared)
    @door.counting
    def post_media(call: Call) -> Response:
        """Keep a snapshot or another blob of the device that sends it; 201 when it is durable."""
        return _accept(service, door.authenticate(credential(), call))

    @api.route("POST", "/v1/telemetry/media", "own", **declared)
    @door.counting
    def post_media_as_telemetry(call: Call) -> Response:
        """Keep a blob, as `POST /v1/media` does."""
        return _accept(service, door.authenticate(credential(), call))

    @api.route("POST", "/v1/devices/<device_id>/media", "operator", **declared)
    def post_media_of(call: Call) -> Response:
        """Keep a blob as one of a device."""
        device_id = call.path["device_id"]
        found = ports.gate.find([device_id] if is_device_id(device_id) else [])
        device = found.known.get(device_id)
        if device is None or device.tenant != call.actor.tenant:
            raise NotFound(f"no device {device_id[:80]!r}", code="device_not_found")
        response = _accept(service, device)
        entry = AuditEntry(call.actor.signature, "media.put", f"device:{device_id}", response.location, call.remote_ip,
                           call.actor.tenant)  # fmt: skip
        ports.reports.note_deed(entry)
        return response

    @api.route("POST", "/internal/batch", "service", callers=("bridge",))
    def post_batch(_call: Call) -> Response:
        """Accept a bridge's batch."""
        request.max_content_length = MAX_BATCH_BYTES
        try:
            batch = decode_batch(request.get_data(cache=False))
        except msgspec.DecodeError as error:
            raise BadRequest(f"not a batch: {error}", code="bad_syntax") from None
        return Response(encode_verdict(service.accept_batch(batch)), mimetype="application/json")


def _accept(service: MediaService, device: Known) -> Response:
    asked = read_query(UploadQuery, set())
    assert isinstance(asked, UploadQuery)
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMedia("a blob is sent as it is, without a content encoding")
    request.max_content_length = ANY_SIZE
    declared = request.content_type or ""
    sent = Sent(device, asked.channel, clock.now_ns(), asked.time, type_named(declared), declared[:128])
    item = service.accept(sent, _pieces(), request.content_length)
    return answer(item.shown(), 201, {"Location": f"/v1/media/{item.id}"})


def _pieces() -> Iterator[bytes]:
    while piece := request.stream.read(CHUNK_BYTES):
        yield piece
