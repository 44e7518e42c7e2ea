"""Public route that tries a codec: HTTP in and out, no rules."""

from __future__ import annotations

from chassis.web import Api, Call
from devices.types.api import TYPES
from devices.types.codecs import Types, try_codec
from wire.codecs import CodecTest, CodecTested


def add_routes(api: Api, types: Types) -> None:
    """Declare the route."""

    @api.route("POST", TYPES + ":test-codec", "operator", body=CodecTest, answers={200: CodecTested})
    def test_codec(call: Call) -> CodecTested:
        """Tell what a codec makes of a payload; nothing is kept."""
        return try_codec(types, call.actor.tenant, call.body)
