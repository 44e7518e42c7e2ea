"""The webhooks of LoRaWAN network servers: answered with 202 as soon as an event is durable, whatever is in it.

ChirpStack sends an event once, and The Things Stack gives up webhooks that are refused too often: what an operator has
to mend here (a device nobody knows, a codec) must not cost the next events.
"""

from __future__ import annotations

from flask import Response, request

from chassis.web import Api, Call, answer
from ingest.door import Door, credential, render, shown
from ingest.protocols import Protocol
from ingest.service import Receipt

OF_THE_REQUEST = ("bad_encoding", "bad_syntax", "trailing_data", "too_large", "too_deep")  # not of an event


def add_chirpstack(api: Api, door: Door, protocol: Protocol) -> None:
    """Declare ChirpStack's path."""

    @api.route("POST", "/v1/telemetry/chirpstack", "own", is_on_loop=True)
    @door.counting
    def post_chirpstack_event(call: Call) -> Response:
        """Accept an event of ChirpStack's HTTP integration; `event` says which it is."""
        device = door.authenticate(credential(), call)
        return _answer(door.take(device, protocol, request.args.get("event", "up")[:64]))


def add_tts(api: Api, door: Door, protocol: Protocol) -> None:
    """Declare The Things Stack's paths."""

    @api.route("POST", "/v1/telemetry/tts/<path:kind>", "own", is_on_loop=True)
    @door.counting
    def post_tts_event(call: Call) -> Response:
        """Accept an event of a webhook of The Things Stack; its body says which it is."""
        device = door.authenticate(credential(), call)
        return _answer(door.take(device, protocol, call.path["kind"][:64]))


def _answer(receipt: Receipt) -> Response:
    if any(item.code in OF_THE_REQUEST for item in receipt.quarantined):
        return render(receipt)
    return answer({"accepted": receipt.accepted, "quarantined": [shown(item) for item in receipt.quarantined]}, 202)
