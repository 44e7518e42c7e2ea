"""The `If-Match` header of a conditional write: HTTP in, a version out."""

from __future__ import annotations

import re

from flask import request

from wire.errors import BadRequest

_TAG = re.compile(r'(?:W/)?"?(\d{1,18})(?:\.\d{1,18})?"?')


def expected_version() -> int | None:
    """Give the version that the request's `If-Match` names; None where there is none, or `*`.

    Of a tag such as `"3.7"` (desired 3, reported 7) the first number counts: a write changes that part only.

    Raises:
        BadRequest: it is no tag of ours.
    """
    text = request.headers.get("If-Match", "").strip()
    if text in ("", "*"):
        return None
    match = _TAG.fullmatch(text)
    if match is None:
        raise BadRequest(f"If-Match is one ETag that was answered here, or *, not {text[:60]!r}", fields=["If-Match"])
    return int(match[1])
