"""Lines of weather stations, such as `temp=21.5C hum=40%`, to records. Pure: bytes in, records or faults out."""

from __future__ import annotations

import re

from ingest.protocols.base import Context, Decoded, Fault, Record

_VALUE = re.compile(r"([a-z]{1,20})=(-?\d{1,6}(?:\.\d{1,6})?)(C|%|hPa)")


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a line; on `weather/{station}` a gateway speaks for that station, anybody else for himself."""
    record = Record(0, {}, measurement="weather")
    if context.is_gateway and context.topic.startswith("weather/"):
        record.device = f"weather:{context.topic.removeprefix('weather/')}"
    decoded = Decoded([record])
    for word in content.decode("ascii", "replace").split():
        value = _VALUE.fullmatch(word)
        if value is None:
            return Decoded(
                faults=[Fault(0, "bad_syntax", f"{word[:40]!r} is no name=number and unit")], is_unreadable=True
            )
        record.fields[value[1]] = float(value[2])
    if not record.fields:
        return Decoded(faults=[Fault(0, "no_values", "the line is empty")])
    return decoded
