"""What packages may offer as protocols, for tests/wire/test_declared.py."""

from wire.protocols import Declaration, Topics

GOOD = Declaration("weather", "weather", "weather.decoder:decode", ("text/weather",), topics=Topics(("weather/#",)))
OTHER = Declaration("weather", "weather2", "other.decoder:decode")
PAIR = (Declaration("tide", "tide", "tide.decoder:decode"), Declaration("surf", "tide", "tide.decoder:decode_surf"))
NOTHING = 21.5
EMPTY = ()


def offer(**members: object) -> Declaration:
    """Give a declaration that is good but for what is given."""
    return Declaration(**({"name": "odd", "service": "odd", "decoder": "odd.decoder:decode"} | members))


NAME_TAKEN = offer(name="json")
SERVICE_TAKEN = offer(service="sparkplug")
MEDIA_TAKEN = offer(media_types=("application/cbor",))
SAME_MEDIA = (offer(media_types=("text/x",)), offer(name="odd2", media_types=("text/x",)))
TWICE = (offer(), offer())
BAD_NAME = offer(name="Bad Name; }")
BAD_SERVICE = offer(service="../x")
BAD_DECODER = offer(decoder=".json.decoder:decode")
BAD_MEDIA = offer(media_types=("text/plain; }",))
BAD_STATE = offer(states=("LWT",))
OURS = offer(topics=Topics(("devices/#",)))
ANY = offer(topics=Topics(("#",)))
NO_FILTER = offer(topics=Topics(("a/#/b",)))
DOORS = offer(doors="odd.doors:add", paths=("/v1/devices",))
ORDERED = offer(topics=Topics(("odd/#",), is_ordered=True))
