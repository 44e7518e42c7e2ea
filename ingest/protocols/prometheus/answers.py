"""How Prometheus words its answers, so that agents repeat what they must, and nothing else. Pure.

Agents repeat what is told 5xx; 4xx they drop, 429 as well unless `retry_on_http_429` is set (Prometheus,
storage/remote/client.go). So what may be repeated is a 503 here, with `Retry-After`.
"""

from __future__ import annotations

from http import HTTPStatus

from ingest.protocols import Refusal
from wire.errors import HeadwaterError, RetryLater

TYPES = {400: "bad_data", 401: "unauthorized", 403: "forbidden", 413: "too_large", 415: "bad_data", 503: "unavailable"}


def refusal(error: HeadwaterError, _path: str = "") -> Refusal:
    """Word an error: `{"status":"error","errorType","error"}`; agents log it as a line."""
    status, headers = int(error.status), {}
    if isinstance(error, RetryLater) or status == HTTPStatus.REQUEST_TIMEOUT:
        status = int(HTTPStatus.SERVICE_UNAVAILABLE)
        headers["Retry-After"] = str(error.retry_after_s if isinstance(error, RetryLater) else 1)
    kind = TYPES.get(status, "internal" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "bad_data")
    return Refusal(status, {"status": "error", "errorType": kind, "error": error.detail}, headers)
