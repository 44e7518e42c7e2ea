"""Readings as bytes, in the payload formats that simulated devices speak."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import cbor2
import msgpack
import orjson

from simulators.scenario import Model

Render = Callable[[float], Any]  # the time that the thing lives in -> its values, ready for the other
Write = Callable[[int, str, int, Any], bytes]  # time, boot_id, seq, values -> a message
_PAD = b',"pad":"%s"}}'


class Format(NamedTuple):
    """How a protocol's messages are made, and what they are called over HTTP."""

    media_type: str
    encode: Callable[[Any], bytes] | None = None  # None: JSON, which is put together from pieces


FORMATS = {
    "json": Format("application/json"),
    "cbor": Format("application/cbor", cbor2.dumps),
    "msgpack": Format("application/msgpack", msgpack.packb),
}


def speak(protocol: str, model: Model, size: int = 0) -> tuple[Render, Write]:
    """Give how a thing's values are taken, and how a message is made of them, padded to `size` bytes."""
    encode = FORMATS[protocol].encode
    if encode is not None:
        return model.values, _binary(encode, size)
    own: Render | None = getattr(model, "render", None)
    return own or (lambda at_s: orjson.dumps(model.values(at_s))), _json(size)


@cache  # one for all devices, not one each
def _json(size: int) -> Write:
    def write(ts: int, boot_id: str, seq: int, values: bytes) -> bytes:
        content = b'{"ts":%d,"boot_id":"%s","seq":%d,"values":%s}' % (ts, boot_id.encode(), seq, values)
        if size > len(content):
            content = content[:-2] + _PAD % (b"x" * (size - len(content) - len(_PAD) + 4))
        return content

    return write


@cache
def _binary(encode: Callable[[Any], bytes], size: int) -> Write:
    def write(ts: int, boot_id: str, seq: int, values: dict[str, Any]) -> bytes:
        reading = {"ts": ts, "boot_id": boot_id, "seq": seq, "values": values}
        content = encode(reading)
        if size > len(content):
            values["pad"] = ""
            values["pad"] = "x" * (size - len(encode(reading)))  # its own length may take four bytes more
            content = encode(reading)
        return content

    return write
