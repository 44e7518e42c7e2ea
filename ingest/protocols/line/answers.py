"""How InfluxDB words its answers, so that its clients repeat what they must, and nothing else. Pure.

What they make of a status, read in influxdb-client-python f0098121 (write/retry.py), telegraf b2726314
(outputs/influxdb_v2/http.go, outputs/influxdb/http.go) and InfluxDB-Client-for-Arduino c004871e:

| | influxdb-client, Arduino | Telegraf v2 | Telegraf v1 |
|---|---|---|---|
| 400, 404, 422 | dropped | dropped | dropped |
| 401, 403 | dropped | repeated | dropped |
| 413 | dropped | cut in two and repeated | dropped |
| 429 | repeated | repeated | dropped |
| 500, 503 | repeated | repeated | repeated |

So the paths of v1 never say 429: what may be repeated there is a 503.
"""

from __future__ import annotations

from http import HTTPStatus

from ingest.protocols import Refusal
from wire.errors import HeadwaterError, RetryLater, Unauthorized

VERSION = "2.7.0+headwater"  # of the API that is spoken
ABOUT = {"X-Influxdb-Version": VERSION, "X-Influxdb-Build": "headwater"}
V2 = "/api/v2/"
CODES = {  # of v2, by status
    400: "invalid", 401: "unauthorized", 403: "forbidden", 404: "not found", 405: "method not allowed",
    408: "unavailable", 413: "request too large", 415: "invalid", 422: "unprocessable entity",
    429: "too many requests", 503: "unavailable",
}  # fmt: skip
MAX_HEADER_CHARS = 400


def refusal(error: HeadwaterError, path: str) -> Refusal:
    """Word an error for a path: of v2 `{"code","message","line"}`, of v1 `{"error"}` and a header."""
    headers = dict(ABOUT)
    if isinstance(error, RetryLater):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Basic realm="InfluxDB"'
    if path.startswith(V2):
        code = CODES.get(error.status, "internal error")
        headers["X-Platform-Error-Code"] = code
        return Refusal(error.status, {"code": code, "message": error.detail} | error.extra, headers)
    status = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, RetryLater) else error.status
    shown = error.detail.encode("ascii", "backslashreplace").decode()
    headers["X-Influxdb-Error"] = "".join(filter(str.isprintable, shown))[:MAX_HEADER_CHARS]
    return Refusal(int(status), {"error": error.detail}, headers)
