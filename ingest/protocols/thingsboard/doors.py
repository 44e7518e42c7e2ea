"""ThingsBoard's HTTP device API: the token in the path, an empty 200 as the answer."""

from __future__ import annotations

from io import BytesIO

from flask import Response, request

from chassis.bodies import read_raw_body
from chassis.parking import IS_WHOLE
from chassis.web import Api, Call
from ingest.door import FIRST_SERVER_ERROR, Door
from ingest.protocols import Protocol
from wire.devices import parse_bearer

NOTHING = b"{}"  # by which clients try whether they are let in


def add_doors(api: Api, door: Door, protocol: Protocol) -> None:
    """Declare the paths."""

    @api.route("POST", "/api/v1/<token>/telemetry", "own", is_on_loop=True)
    @door.counting
    def post_thingsboard_telemetry(call: Call) -> Response:
        """Accept telemetry as ThingsBoard does: the token is `{device_id}.{secret}`, the answer an empty 200."""
        device = door.authenticate(parse_bearer(call.path["token"]), call)
        if _is_empty():
            return Response(status=200)
        accepted = door.accept(device, protocol)
        return Response(status=200) if accepted.status_code < FIRST_SERVER_ERROR else accepted


def _is_empty() -> bool:
    """Tell whether the body holds nothing; else it is left as it came."""
    if request.content_length != len(NOTHING):
        return False
    content, _ = read_raw_body()
    request.environ |= {"wsgi.input": BytesIO(content), IS_WHOLE: True}
    return content == NOTHING
