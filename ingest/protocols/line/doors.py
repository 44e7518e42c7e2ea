"""InfluxDB's HTTP API as far as its clients need it to write: v2, v1, and what they ask before they begin."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from flask import Response, request
from pydantic import BaseModel

from chassis.web import Api, Call, answer
from ingest.door import Door, Quarantined, credential, in_words
from ingest.protocols import Protocol
from ingest.protocols.line import answers
from ingest.protocols.line.decoder import SOURCE, UNITS
from ingest.quarantine import WAITS
from ingest.service import Receipt
from wire import clock
from wire.devices import parse_bearer
from wire.errors import BadRequest, HeadwaterError

V2_UNITS = ("ns", "us", "ms", "s")
CREATE = re.compile(r"\s*create\s+(database|retention\s+policy)\b", re.IGNORECASE)
STARTED_NS = clock.now_ns()


class InfluxRefusal(BaseModel):
    """An error as InfluxDB v2 says it; `line` is the first at fault, from 1."""

    code: str
    message: str
    line: int | None = None


class InfluxRefusalV1(BaseModel):
    """An error as InfluxDB v1 says it."""

    error: str


def _answers(refusal: type[BaseModel], status: int = 204, done: Any = None) -> dict[int, Any]:
    return {status: done} | dict.fromkeys((400, 401, 403, 405, 413, 415, 429, 503), refusal)


def add_doors(api: Api, door: Door, protocol: Protocol) -> None:
    """Declare the paths."""
    _add_probes(api)

    def take(call: Call, units: tuple[str, ...]) -> Response:
        device = door.authenticate(_presented(), call)
        unit = request.args.get("precision") or "ns"
        if unit not in units:
            raise BadRequest(f"invalid precision {unit[:16]!r}: one of {', '.join(units)}")
        receipt = door.take(device, protocol, SOURCE + unit)
        if receipt.quarantined and receipt.quarantined[0] != WAITS:  # held data is kept, and will be stored
            raise _partial(receipt)
        return Response(status=204, headers=answers.ABOUT)

    @api.route("POST", "/api/v2/write", "own", answers=_answers(InfluxRefusal), is_on_loop=True)
    @in_words(_word)
    @door.counting
    def post_influx_v2(call: Call) -> Response:
        """Accept line protocol as InfluxDB v2 does: 204, or `{"code","message","line"}`."""
        return take(call, V2_UNITS)

    @api.route("POST", "/write", "own", answers=_answers(InfluxRefusalV1), is_on_loop=True)
    @in_words(_word)
    @door.counting
    def post_influx_v1(call: Call) -> Response:
        """Accept line protocol as InfluxDB v1 does: 204, or `{"error"}`."""
        return take(call, tuple(UNITS))

    @api.route("POST", "/query", "own", answers=_answers(InfluxRefusalV1, 200, dict[str, Any]), is_on_loop=True)
    @in_words(_word)
    @door.counting
    def post_influx_query(call: Call) -> Response:
        """Answer CREATE DATABASE, with which clients of InfluxDB v1 begin, as done."""
        door.authenticate(_presented(), call)
        if not CREATE.match(request.values.get("q", "")):
            raise BadRequest("only CREATE DATABASE is known here; readings are queried at /v1/query")
        return answer({"results": [{"statement_id": 0}]}, headers=answers.ABOUT)


def _add_probes(api: Api) -> None:
    @api.route("GET", "/ping", "public", answers={204: None, 200: dict[str, str]})
    def get_influx_ping(_call: Call) -> Response:
        """Answer a client that looks whether somebody is there; with `verbose` with a body."""
        if request.args.get("verbose", "false") not in ("", "0", "false"):
            return answer({"version": answers.VERSION}, headers=answers.ABOUT)
        return Response(status=204, headers=answers.ABOUT)

    @api.route("GET", "/health", "public", answers={200: dict[str, Any]})
    def get_influx_health(_call: Call) -> Response:
        """Tell a client of InfluxDB v2 that it can write."""
        state = {"name": "influxdb", "status": "pass", "message": "ready for writes", "version": answers.VERSION}
        return answer(state | {"checks": []}, headers=answers.ABOUT)

    @api.route("GET", "/ready", "public", answers={200: dict[str, str]})
    def get_influx_ready(_call: Call) -> Response:
        """Tell a client of InfluxDB v2 since when it can write."""
        up_s = (clock.now_ns() - STARTED_NS) // clock.NS_PER_S
        state = {"status": "ready", "started": clock.format_ns(STARTED_NS), "up": f"{up_s}s"}
        return answer(state, headers=answers.ABOUT)


def _partial(receipt: Receipt) -> Quarantined:
    """Say which line of a request is the first at fault."""
    first = min(receipt.quarantined, key=lambda item: item.record or 0)
    place = "" if first.record is None else f"line {first.record + 1}: "
    counts = f"{receipt.accepted} accepted, {len(receipt.quarantined)} kept in the quarantine"
    error = Quarantined(f"partial write: {place}{first.detail} ({first.code}); {counts}", code=first.code)
    error.status = HTTPStatus.BAD_REQUEST  # clients do not repeat it
    if first.record is not None:
        error.extra = {"line": first.record + 1}
    return error


def _word(error: HeadwaterError) -> Response:
    status, body, headers = answers.refusal(error, request.path)
    return answer(body, status, headers)


def _presented() -> tuple[str, str] | None:
    """Give device id and secret: `Token` or `Bearer` with both, Basic, or `u` and `p` in the query.

    Where there is a name beside it, the password may be the whole `{device_id}.{secret}`, as InfluxDB v2 has it.
    """
    header = request.environ.get("HTTP_AUTHORIZATION", "")
    if header[:6].lower() == "token ":
        token = header[6:].strip()
        device_id, colon, secret = token.partition(":")  # the form of clients of InfluxDB 1.8
        return _named(device_id, secret) if colon else parse_bearer(token)
    given = credential()
    if header[:7].lower() == "bearer ":
        return given
    name, password = given or (request.args.get("u", ""), request.args.get("p", ""))
    return _named(name, password)


def _named(name: str, password: str) -> tuple[str, str] | None:
    return parse_bearer(password) or ((name, password) if name and password else None)
