"""Codecs in JavaScript: how the public forms of decoder functions are called, and what they give.

A script has one of three functions, looked for in this order:

- `decodeUplink({bytes, fPort, recvTime, variables})`, of the LoRa Alliance's payload codec API (TS013), The Things
  Stack and ChirpStack v4: gives `{data, warnings, errors}`;
- `Decode(fPort, bytes, variables)` of ChirpStack v3: gives the data;
- `Decoder(bytes, fPort)` of The Things Network v2: gives the data.

It may have one for the way back, `encodeDownlink({data, variables})` that gives `{bytes, fPort, warnings, errors}`,
`Encode(fPort, data, variables)` or `Encoder(data, fPort)` that give the bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field

from wire.clock import NS_PER_MS
from wire.devices import Codec, Model

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_BYTE = 255
MAX_SENTENCES, MAX_SENTENCE_CHARS = 8, 256  # of warnings or errors: they end as the detail of a message
FORMS = ("decodeUplink", "Decode", "Decoder")
HAS_FORM = " || ".join(f'typeof {name} === "function"' for name in FORMS)
# What a script defines by `let` or `const` is no property of the global object: only its name finds it.
CHECK = f'({HAS_FORM}) ? "ok" : "none"'
_DECODE = """JSON.stringify((function (bytes, fPort, at) {
  const variables = {};
  if (typeof decodeUplink === "function") {
    return decodeUplink({bytes: bytes, fPort: fPort, recvTime: new Date(at), variables: variables});
  }
  return {data: typeof Decode === "function" ? Decode(fPort, bytes, variables) : Decoder(bytes, fPort)};
})(%s, %d, %d))"""

_ENCODE = """JSON.stringify((function (data, fPort) {
  const variables = {};
  if (typeof encodeDownlink === "function") return encodeDownlink({data: data, fPort: fPort, variables: variables});
  if (typeof Encode === "function") return {bytes: Encode(fPort, data, variables)};
  if (typeof Encoder === "function") return {bytes: Encoder(data, fPort)};
  return {};
})(JSON.parse(%s), %d))"""


class CodecFault(Exception):  # noqa: N818 - an answer about the codec
    """Why a codec gave no data: its own errors, or what it gave is of another form."""


@dataclass(slots=True)
class Told:
    """What a codec gave of one message."""

    data: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    is_partial: bool = False  # bytes are left that nothing was made of


class CodecTest(Model):
    """A codec to be tried on a message; without one that of a type, of the version in force unless one is named."""

    codec: Codec | None = None
    type: str | None = Field(default=None, max_length=64)
    version: int | None = Field(default=None, ge=1, le=2**53)
    payload: str = Field(max_length=2 * MAX_PAYLOAD_BYTES, pattern=r"^([0-9A-Fa-f]{2})*$")
    port: int = Field(default=1, ge=0, le=255)


class CodecTested(BaseModel):
    """What it gave; `error`: why a message like this would be quarantined."""

    data: dict[str, Any] | None = None
    warnings: list[str] = []
    error: str | None = None


def decoding(content: bytes, port: int, received_ns: int) -> str:
    """Give the expression that decodes a message's bytes, once the script is loaded."""
    return _DECODE % (list(content), port, received_ns // NS_PER_MS)


def encoding(data: dict[str, Any], port: int) -> str:
    """Give the expression that encodes the object of a downlink, once the script is loaded."""
    return _ENCODE % (json.dumps(json.dumps(data)), port)


def read_encoded(text: str, port: int) -> tuple[bytes, int] | None:
    """Read the bytes of a downlink, and on which port they go; None: the script encodes nothing.

    Raises:
        CodecFault: it names errors, or gave something else.
    """
    given = _members(text)
    if not given:
        return None
    content, on = given.get("bytes"), given.get("fPort", port)
    if not isinstance(content, list) or any(type(each) is not int or not 0 <= each <= MAX_BYTE for each in content):
        raise CodecFault("it gives no `bytes` that are a list of whole numbers from 0 to 255")
    if type(on) is not int:
        raise CodecFault("it gives an `fPort` that is no whole number")
    return bytes(content), on


def read_told(text: str) -> Told:
    """Read what a codec gave.

    Raises:
        CodecFault: it names errors, or is of no form that is known.
    """
    given = _members(text)
    data = given.get("data")
    if not isinstance(data, dict):
        raise CodecFault("it gives no `data` that is an object")
    return Told(data, _sentences(given.get("warnings")))


def _members(text: str) -> dict[str, Any]:
    """Give the object that a script gave. Raises CodecFault: it is none, or names errors."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise CodecFault("its result is no JSON") from None
    if not isinstance(given, dict):
        raise CodecFault("it gives no object")
    errors = _sentences(given.get("errors"))
    if errors:
        raise CodecFault("; ".join(errors))
    return given


def _sentences(given: Any) -> list[str]:
    """Give warnings or errors as texts, whatever a script made of them."""
    if not given:
        return []
    each = given if isinstance(given, list) else [given]
    return [_sentence(one if isinstance(one, str) else json.dumps(one)) for one in each[:MAX_SENTENCES]]


def _sentence(text: str) -> str:
    # A lone surrogate is no character: what keeps or sends the text could not encode it.
    return text[:MAX_SENTENCE_CHARS].encode(errors="replace").decode()
