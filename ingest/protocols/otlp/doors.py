"""The path that OTLP's exporters post metrics to."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, request
from pydantic import BaseModel
from werkzeug.http import parse_options_header

from chassis.web import Api, Call
from ingest.door import Door, Quarantined, credential, in_words
from ingest.protocols import Protocol
from ingest.protocols.otlp import answers
from ingest.protocols.otlp.decoder import JSON, PROTOBUF
from ingest.quarantine import WAITS
from ingest.service import Receipt
from wire.errors import HeadwaterError, UnsupportedMedia


class OtlpPartialSuccess(BaseModel):
    """What of a request was not stored."""

    rejectedDataPoints: str  # noqa: N815 - as OTLP names it
    errorMessage: str  # noqa: N815


class OtlpSuccess(BaseModel):
    """The answer to a request that was taken, in JSON."""

    partialSuccess: OtlpPartialSuccess | None = None  # noqa: N815


class OtlpStatus(BaseModel):
    """An error as google.rpc.Status, in JSON."""

    code: int
    message: str


def add_doors(api: Api, door: Door, protocol: Protocol) -> None:
    """Declare the path."""
    told: dict[int, Any] = {200: OtlpSuccess} | dict.fromkeys((400, 401, 403, 413, 415, 429, 503), OtlpStatus)

    @api.route("POST", "/v1/metrics", "own", answers=told, is_on_loop=True)
    @in_words(_word)
    @door.counting
    def post_otlp_metrics(call: Call) -> Response:
        """Accept metrics as OTLP has it: 200, with `partial_success` where something is kept in the quarantine."""
        if _media() not in (JSON, PROTOBUF):
            raise UnsupportedMedia(f"Content-Type {_media()[:64]!r}; {PROTOBUF} and {JSON} are known")
        device = door.authenticate(credential(), call)
        return _tell(door.take(device, protocol, _media()))


def _tell(receipt: Receipt) -> Response:
    items = receipt.quarantined
    if not items or items[0] == WAITS:  # held data is kept, and will be stored
        return _respond(answers.success(0, "", is_json=_is_json()), HTTPStatus.OK)
    first = min(items, key=lambda item: item.record or 0)
    if first.record is None:
        error = Quarantined(f"{first.detail} ({first.code})", code=first.code)
        error.status = HTTPStatus.BAD_REQUEST
        raise error
    rejected = sum(item.is_whole for item in items)
    place = f"data point {first.record + 1}: {first.detail} ({first.code})"
    message = f"{place}; {receipt.accepted} accepted, {len(items)} kept in the quarantine"
    return _respond(answers.success(rejected, message, is_json=_is_json()), HTTPStatus.OK)


def _word(error: HeadwaterError) -> Response:
    status, body, headers = answers.refusal(error)
    response = _respond(answers.status_in(body, is_json=_is_json()), status)
    response.headers.update(headers)
    return response


def _respond(content: bytes, status: int) -> Response:
    return Response(content, status, content_type=JSON if _is_json() else PROTOBUF)


def _media() -> str:
    return parse_options_header(request.environ.get("CONTENT_TYPE", ""))[0].lower()


def _is_json() -> bool:
    return _media() != PROTOBUF
