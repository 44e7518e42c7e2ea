"""The path that Prometheus and its agents write to."""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import Any

import cramjam
from flask import Response, request
from pydantic import BaseModel
from werkzeug.http import parse_options_header

from chassis.bodies import read_raw_body
from chassis.parking import IS_WHOLE
from chassis.web import Api, Call, answer
from ingest.door import Door, Quarantined, credential, in_words
from ingest.protocols import Protocol
from ingest.protocols.base import MAX_INFLATED_BYTES
from ingest.protocols.prometheus import answers
from ingest.quarantine import WAITS
from ingest.service import Receipt
from wire.errors import BadRequest, HeadwaterError, TooLarge, UnsupportedMedia

PROTOBUF = "application/x-protobuf"
VERSION_1 = "prometheus.WriteRequest"  # the message that a Content-Type without `proto` means


class PrometheusRefusal(BaseModel):
    """An error as Prometheus says it."""

    status: str
    errorType: str  # noqa: N815 - as Prometheus names it
    error: str


def add_doors(api: Api, door: Door, protocol: Protocol) -> None:
    """Declare the path."""
    told: dict[int, Any] = {204: None} | dict.fromkeys((400, 401, 403, 413, 415, 503), PrometheusRefusal)

    @api.route("POST", "/api/v1/write", "own", answers=told, is_on_loop=True)
    @in_words(_word)
    @door.counting
    def post_prometheus_write(call: Call) -> Response:
        """Accept remote write 1.0: 204, or 400 for what must not come again."""
        device = door.authenticate(credential(), call)
        _check_media()
        _unpack()
        return _tell(door.take(device, protocol, PROTOBUF))


def _tell(receipt: Receipt) -> Response:
    items = receipt.quarantined
    if not items or items[0] == WAITS:  # held data is kept, and will be stored
        return Response(status=204)
    first = min(items, key=lambda item: item.record or 0)
    place = "" if first.record is None else f"sample {first.record + 1}: "
    counts = f"{receipt.accepted} accepted, {len(items)} kept in the quarantine"
    error = Quarantined(f"{place}{first.detail} ({first.code}); {counts}", code=first.code)
    error.status = HTTPStatus.BAD_REQUEST  # agents do not repeat it
    raise error


def _check_media() -> None:
    """Refuse other versions, so that an agent of 2.0 falls back to 1.0."""
    media, options = parse_options_header(request.environ.get("CONTENT_TYPE", ""))
    if media.lower() != PROTOBUF or options.get("proto", VERSION_1) != VERSION_1:
        raise UnsupportedMedia(f"Content-Type {PROTOBUF} with {VERSION_1} (remote write 1.0) is known")


def _unpack() -> None:
    """Put what the body is once inflated in its place."""
    encoding = request.environ.pop("HTTP_CONTENT_ENCODING", "")
    if encoding.strip().lower() != "snappy":
        raise UnsupportedMedia("Content-Encoding: snappy is known, as remote write has it")
    packed, _ = read_raw_body()
    request.environ |= {"wsgi.input": BytesIO(inflate(packed)), IS_WHOLE: True}


def inflate(packed: bytes) -> bytes:
    """Inflate a block of snappy, as large as its head says.

    Raises:
        TooLarge: it says more than the cap; nothing is inflated.
        BadRequest: it is none.
    """
    try:
        size = cramjam.snappy.decompress_raw_len(packed)
        if size > MAX_INFLATED_BYTES:
            raise TooLarge(f"the body inflates to {size} bytes, limit {MAX_INFLATED_BYTES}")
        return bytes(cramjam.snappy.decompress_raw(packed))
    except cramjam.DecompressionError:
        raise BadRequest("the body is no block of snappy", code="bad_encoding") from None


def _word(error: HeadwaterError) -> Response:
    status, body, headers = answers.refusal(error)
    return answer(body, status, headers)
