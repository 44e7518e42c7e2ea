"""What ThingsBoard's devices ask of their server (client-side RPC), and what they are answered. Knows no transport."""

from __future__ import annotations

from typing import Any, Final

import orjson

from wire import clock
from wire.errors import BadRequest

MAX_INFLIGHT = 100  # messages of one connection that are not acknowledged yet
MAX_PAYLOAD_BYTES = 256 * 1024
# ThingsBoard's own SDK asks for these before its first message. No rates: those of Headwater slow down, drop nothing.
SESSION_LIMITS: Final = {
    "maxPayloadSize": MAX_PAYLOAD_BYTES,
    "maxInflightMessages": MAX_INFLIGHT,
    "rateLimits": {},
    "gatewayRateLimits": {},
}


def answer_to(content: bytes) -> Any:
    """Answer a request `{"method", "params"}`: the time in ms since the epoch, or the limits of a session.

    Raises:
        BadRequest: it is none (`bad_syntax`, `bad_structure`), or asks for another method (`unsupported`).
    """
    try:
        asked = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the request is not JSON: {error}", code="bad_syntax") from None
    method = asked.get("method") if isinstance(asked, dict) else None
    if not isinstance(method, str):
        raise BadRequest('a request is {"method": text, "params": anything}', code="bad_structure")
    if method == "getCurrentTime":
        return clock.now_ns() // clock.NS_PER_MS
    if method == "getSessionLimits":
        return SESSION_LIMITS
    raise BadRequest(f"no method {method[:64]!r}: there are getCurrentTime and getSessionLimits", code="unsupported")
