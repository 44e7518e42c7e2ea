"""Errors by their stable codes, and the RFC 9457 problem document they become. Knows no web framework.

HeadwaterError (code, status)
├── BadRequest 400          the request cannot be read
│   ├── Unprocessable 422   it can be read, but its content is refused
│   ├── TooLarge 413
│   └── UnsupportedMedia 415
├── Unauthorized 401        no or wrong credential
├── Forbidden 403           known, but not allowed
├── NotFound 404
├── Conflict 409
├── TooManyRequests 429     with Retry-After
└── Unavailable 503         with Retry-After: nothing was kept, try again
    ├── SpoolFull
    ├── StoreUnavailable
    └── PeerUnavailable
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_JARGON = re.compile(r"^(Value error, |(Input|String|List|Dictionary|Value) should (?=be |have |match ))")


class HeadwaterError(Exception):
    """Base of all: a sentence naming the thing and the limit, a stable code, an HTTP status."""

    status = 500
    code = "internal"

    def __init__(self, detail: str, *, code: str | None = None, fields: Sequence[str] = (), **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.fields = tuple(fields)
        self.extra = extra

    def to_problem(self) -> dict[str, Any]:
        """Render as a problem document (RFC 9457 s. 3); `fields` name the members at fault."""
        problem: dict[str, Any] = {
            "type": f"urn:headwater:error:{self.code}",
            "title": TITLES.get(self.code, self.code.replace("_", " ")),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.fields:
            problem["fields"] = list(self.fields)
        return problem | self.extra


class BadRequest(HeadwaterError):  # noqa: N818 - named as HTTP names them
    """The request cannot be read."""

    status, code = 400, "bad_request"


class Unprocessable(BadRequest):
    """It can be read, but its content is refused."""

    status, code = 422, "unprocessable"


class TooLarge(BadRequest):
    """A body or a part of it is over a limit."""

    status, code = 413, "too_large"


class UnsupportedMedia(BadRequest):
    """The body is not what it says it is."""

    status, code = 415, "media_type"


class Unauthorized(HeadwaterError):  # noqa: N818
    """No credential, or a wrong one."""

    status, code = 401, "unauthorized"


class Forbidden(HeadwaterError):  # noqa: N818
    """Known, but not allowed."""

    status, code = 403, "forbidden"


class NotFound(HeadwaterError):  # noqa: N818
    """No such thing."""

    status, code = 404, "not_found"


class Conflict(HeadwaterError):  # noqa: N818
    """It contradicts what is there."""

    status, code = 409, "conflict"


class RetryLater(HeadwaterError):  # noqa: N818
    """Nothing was kept; the same request may succeed after `retry_after_s`."""

    def __init__(self, detail: str, *, retry_after_s: int = 1, code: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.retry_after_s = retry_after_s


class TooManyRequests(RetryLater):
    """Over a rate limit."""

    status, code = 429, "rate_limited"


class Unavailable(RetryLater):
    """Not now."""

    status, code = 503, "unavailable"


class SpoolFull(Unavailable):
    """The spool is at its high-water mark, or its disk is full."""

    code = "spool_full"


class StoreUnavailable(Unavailable):
    """The time-series store cannot be reached or written."""

    code = "store_unavailable"


class PeerUnavailable(Unavailable):
    """Another service of the platform does not answer."""

    code = "peer_unavailable"


# Reason codes of refused and quarantined data (docs/errors.md), with the HTTP status used when nothing of a request
# was accepted. Services branch on these, never on text.
REASONS: dict[str, int] = {
    "bad_encoding": 400,
    "bad_syntax": 400,
    "bad_structure": 400,
    "trailing_data": 400,
    "too_large": 413,
    "too_deep": 400,
    "too_many_fields": 400,
    "media_type": 415,
    "unsupported": 400,
    "bad_name": 422,
    "bad_value": 422,
    "no_values": 422,
    "bad_time": 422,
    "version": 422,
    "must_understand": 422,
    "too_old": 422,
    "too_new": 422,
    "out_of_range": 422,
    "nonfinite": 422,
    "type_conflict": 422,
    "missing_field": 422,
    "unknown_field": 422,
    "identity_mismatch": 403,
    "unknown_device": 403,
    "device_disabled": 403,
    "device_held": 202,
    "child_refused": 403,
    "too_many_children": 403,
    "bad_topic": 400,
    "retained": 422,
    "not_born": 422,
    "unknown_alias": 422,
    "store_refused": 422,
    "codec": 422,
    "rate_limited": 429,
}

TITLES: dict[str, str] = {
    "internal": "Internal error",
    "bad_request": "Bad request",
    "unprocessable": "Content refused",
    "bad_query": "The query cannot be read",
    "unauthorized": "No valid credential",
    "forbidden": "Not allowed",
    "not_found": "Not found",
    "conflict": "Conflict",
    "rate_limited": "Too many requests",
    "unavailable": "Not available now",
    "spool_full": "The spool is full",
    "too_slow": "Too slow",
    "uri_too_long": "Request line too long",
    "header_too_large": "Headers too large",
    "foreign_origin": "A foreign page",
    "login_failed": "Wrong name or password",
    "login_back_off": "Too many wrong log-ins",
    "token_back_off": "Too many wrong tokens",
    "last_admin": "The last admin",
    "quarantine_full": "The quarantine is full",
    "media_full": "As many media as may be kept",
    "media_disk_full": "No room for media",
    "media_unavailable": "Media are not available",
    "media_not_found": "No such media",
    "no_thumbnail": "No thumbnail",
    "store_unavailable": "The store is not available",
    "peer_unavailable": "A service is not available",
    "method_not_allowed": "Method not allowed",
    "too_large": "Too large",
    "media_type": "Unsupported media type",
    "bad_encoding": "Not UTF-8",
    "bad_syntax": "Does not parse",
    "bad_structure": "Wrong structure",
    "too_deep": "Nested too deeply",
    "too_many_fields": "Too many fields",
    "bad_name": "Bad name",
    "bad_value": "Bad value",
    "no_values": "No values",
    "bad_time": "Bad time",
    "too_old": "Older than the device type takes",
    "too_new": "Further ahead than the device type takes",
    "out_of_range": "Out of range",
    "nonfinite": "Not a finite number",
    "type_conflict": "Type conflict",
    "missing_field": "A required field is missing",
    "unknown_field": "A field the device type does not name",
    "identity_mismatch": "Not this device",
    "unknown_device": "Unknown device",
    "device_disabled": "Device disabled",
    "device_held": "Device waits to be accepted",
    "child_refused": "No child of this gateway",
    "too_many_children": "The gateway has all its children",
    "bad_topic": "Not a topic of ours",
    "trailing_data": "Bytes after the value",
    "unsupported": "Unsupported",
    "version": "A newer version",
    "must_understand": "Something that must be understood",
    "not_born": "No birth known",
    "unknown_alias": "No birth declared this alias",
    "retained": "Retained message",
    "store_refused": "Refused by the store",
    "codec": "The codec of the device type failed",
}


def in_words(found: Mapping[str, Any]) -> str:
    """Say one error of a pydantic model for a person: without the words of the library."""
    text = str(found["msg"]).partition(", unable to parse")[0]
    return _JARGON.sub(lambda start: "" if start[1].startswith("Value error") else "must ", text)
