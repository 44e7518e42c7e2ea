"""The protocol `weather`, declared. Every process of Headwater reads this: it imports nothing but the declaration."""

from wire.protocols import Declaration, Topics

PROTOCOL = Declaration(
    name="weather",
    service="weather",
    decoder="headwater_weather.decoder:decode",
    media_types=("text/vnd.weather",),
    topics=Topics(up=("weather/#",)),
)
