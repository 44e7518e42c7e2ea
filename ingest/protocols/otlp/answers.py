"""How OTLP words its answers, in the encoding of the request. Pure.

Exporters repeat what is told 429, 502, 503 or 504, after `Retry-After`, and nothing else (OTLP 1.x, "Failures"); so
a request that took too long to arrive, of which nothing was kept, is a 503 here.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson

from ingest.protocols import Refusal
from ingest.protocols.otlp.messages import Response, Status
from wire.errors import HeadwaterError, RetryLater

RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 413: 3, 415: 3, 429: 8, 503: 14}  # google.rpc.Code, by status
INTERNAL = 13


def refusal(error: HeadwaterError, _path: str = "") -> Refusal:
    """Word an error as google.rpc.Status, in JSON."""
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, RetryLater) else {}
    status = int(error.status)
    if status == HTTPStatus.REQUEST_TIMEOUT:
        status, headers = int(HTTPStatus.SERVICE_UNAVAILABLE), {"Retry-After": "1"}
    return Refusal(status, {"code": RPC_CODES.get(status, INTERNAL), "message": error.detail}, headers)


def status_in(body: dict[str, Any], *, is_json: bool) -> bytes:
    """Encode a refusal's body."""
    if is_json:
        return orjson.dumps(body)
    content: bytes = Status(**body).SerializeToString()
    return content


def success(rejected: int, message: str, *, is_json: bool) -> bytes:
    """Encode what a request is told of which all, or (with a message) not all, was stored."""
    if is_json:
        partial = {"rejectedDataPoints": str(rejected), "errorMessage": message}
        return orjson.dumps({"partialSuccess": partial} if message else {})
    if not message:
        return b""
    answer = Response(partial_success={"rejected_data_points": rejected, "error_message": message})
    content: bytes = answer.SerializeToString()
    return content
