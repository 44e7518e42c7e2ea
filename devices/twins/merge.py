"""Merge patches (RFC 7396), delta and limits of a twin's documents. Pure.

Everywhere else in JSON `null` is a value; in a merge patch it removes, so no document of a twin holds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from wire.errors import BadRequest, TooLarge, Unprocessable

State = dict[str, Any]
MAX_BYTES = 32 * 1024  # of one document, as compact JSON
MAX_PATCH_BYTES = 64 * 1024  # as it comes; a patch may remove much
MAX_DEPTH = 16
MAX_NAME_BYTES = 256


def read(content: bytes) -> State:
    """Read a patch or document.

    Raises:
        TooLarge: over MAX_PATCH_BYTES.
        BadRequest: no JSON (`bad_syntax`), no object (`bad_structure`), or nested too deeply (`too_deep`).
        Unprocessable: a name that is empty, too long or holds control characters (`bad_name`).
    """
    if len(content) > MAX_PATCH_BYTES:
        raise TooLarge(f"a patch of {len(content)} bytes, limit {MAX_PATCH_BYTES}")
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the patch is not JSON: {error}", code="bad_syntax") from None
    return check(parsed)


def check(patch: Any) -> State:
    """Give a patch back when it is one. Raises as `read`, but for its size and syntax."""
    if not isinstance(patch, dict):
        raise BadRequest("a twin's document is a JSON object", code="bad_structure")
    _check_members(patch, 1)
    return patch


def not_desired(given: State) -> Unprocessable:
    """Say that a patch of a whole twin names something else than its desired part."""
    names = sorted(set(given) - {"desired"})[:10]
    return Unprocessable("the body has one member, desired: the device itself reports", fields=names or ["desired"])


def apply(state: State, patch: Mapping[str, Any]) -> State:
    """Give the state after a merge patch; neither argument is changed."""
    merged = dict(state)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            known = merged.get(name)
            merged[name] = apply(known if isinstance(known, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def delta(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> State:
    """Give the part of `desired` that `reported` does not show; what only `reported` has does not count."""
    missing: State = {}
    for name, wanted in desired.items():
        is_known, known = name in reported, reported.get(name)
        if isinstance(wanted, dict) and isinstance(known, dict):
            deeper = delta(wanted, known)
            if deeper:
                missing[name] = deeper
        elif not is_known or not is_same(wanted, known):
            missing[name] = wanted
    return missing


def is_same(one: Any, other: Any) -> bool:
    """Compare as JSON does: `true` is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


def dump(state: State, part: str) -> str:
    """Encode a document for keeping.

    Raises:
        TooLarge: over MAX_BYTES.
    """
    text = orjson.dumps(state, option=orjson.OPT_SORT_KEYS)
    if len(text) > MAX_BYTES:
        raise TooLarge(f"{part} would have {len(text)} bytes, limit {MAX_BYTES}", code="twin_too_large")
    return text.decode()


def _check_members(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH and isinstance(value, dict | list):
        raise BadRequest(f"nested deeper than {MAX_DEPTH}", code="too_deep")
    if isinstance(value, dict):
        for name, member in value.items():
            _check_name(name)
            _check_members(member, depth + 1)
    elif isinstance(value, list):
        for member in value:
            _check_members(member, depth + 1)


def _check_name(name: str) -> None:
    is_legal = 0 < len(name.encode()) <= MAX_NAME_BYTES and not any(char < " " or char == "\x7f" for char in name)
    if not is_legal:
        raise Unprocessable(f"not a legal name: {name[:80]!r}", code="bad_name", fields=[name[:80]])
