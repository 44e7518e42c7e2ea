"""Codecs of device types before they come into force: whether a script can run at all, and what it makes of a message.

Knows no HTTP and no SQL. A script runs here as it does in ingestion: in a process of its own, within its limits.
"""

from __future__ import annotations

from typing import Protocol

import orjson

from chassis import parking
from chassis.scripts import Limits, ScriptFault, run_once
from wire import clock
from wire.codecs import CHECK, FORMS, CodecFault, CodecTest, CodecTested, decoding, read_told
from wire.devices import Codec, DeviceType, DeviceTypeSpec
from wire.errors import Unprocessable
from wire.schemas import TypeVersionDetail


class Types(Protocol):
    """Knows device types; see `devices.types.service.DeviceTypes`."""

    def find(self, tenant: str, name: str) -> DeviceType: ...
    def version(self, tenant: str, name: str, number: int) -> TypeVersionDetail: ...


def demand_runnable(spec: DeviceTypeSpec) -> None:
    """Load the script of a type, if it has one.

    Raises:
        Unprocessable: it does not load within its limits, or defines none of the functions.
    """
    if spec.codec is None or spec.codec.language != "javascript":
        return
    try:
        found = _run(spec.codec, CHECK)
    except ScriptFault as error:
        raise Unprocessable(f"codec.text: {error}", fields=["codec.text"]) from None
    if found != "ok":
        sentence = f"codec.text: it defines none of the functions {', '.join(FORMS)}"
        raise Unprocessable(sentence, fields=["codec.text"])


def try_codec(types: Types, tenant: str, asked: CodecTest) -> CodecTested:
    """Decode a payload as ingestion would; nothing is kept.

    Raises:
        NotFound: no such type, or version.
        Unprocessable: neither a codec nor a type with one, or one in another language.
    """
    codec = asked.codec or _codec_of(types, tenant, asked)
    if codec.language != "javascript":
        raise Unprocessable("only codecs in JavaScript are tried", fields=["codec.language"])
    call = decoding(bytes.fromhex(asked.payload), asked.port, clock.now_ns())
    try:
        told = read_told(_run(codec, call))
        orjson.dumps(told.data)
    except (ScriptFault, CodecFault) as error:
        return CodecTested(error=str(error))
    except TypeError as error:  # lone surrogates, nesting, integers beyond 64 bits: fields are refused for them
        return CodecTested(error=f"its data cannot be shown: {error}")
    return CodecTested(data=told.data, warnings=told.warnings)


def _codec_of(types: Types, tenant: str, asked: CodecTest) -> Codec:
    if asked.type is None:
        raise Unprocessable("give a codec, or a type that has one", fields=["codec", "type"])
    spec: DeviceTypeSpec = types.find(tenant, asked.type)
    if asked.version is not None:
        spec = types.version(tenant, asked.type, asked.version).spec
    if spec.codec is None:
        raise Unprocessable(f"the type {asked.type} has no codec", fields=["type"])
    return spec.codec


def _run(codec: Codec, call: str) -> str:
    return parking.aside(run_once, codec.text, call, Limits(codec.time_limit_ms, codec.memory_limit_kib))
