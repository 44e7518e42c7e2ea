"""Cayenne LPP (low power payload): channel, type and value after each other, big-endian. Pure.

The types of Cayenne's own document, and those that the Arduino library of Electronic Cats added under numbers of the
IPSO registry (object id - 3200). Names are those of The Things Stack's decoder, with the channel behind them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ingest.protocols.flatten import Refused
from wire.codecs import Told


class _Kind(NamedTuple):
    """A type: its name, how many bytes each of its numbers has, by how much they are divided, and what they are."""

    name: str
    size: int
    divisor: int = 1
    is_signed: bool = False
    parts: tuple[str, ...] = ()  # of a value of several numbers
    divisors: tuple[int, ...] = ()  # of these, where they differ


_AXES, _PLACE, _COLOUR = ("x", "y", "z"), ("latitude", "longitude", "altitude"), ("r", "g", "b")
KINDS: dict[int, _Kind] = {
    0: _Kind("digital_in", 1),
    1: _Kind("digital_out", 1),
    2: _Kind("analog_in", 2, 100, is_signed=True),
    3: _Kind("analog_out", 2, 100, is_signed=True),
    100: _Kind("generic_sensor", 4),
    101: _Kind("luminosity", 2),  # lx
    102: _Kind("presence", 1),
    103: _Kind("temperature", 2, 10, is_signed=True),  # degrees Celsius
    104: _Kind("relative_humidity", 1, 2),  # percent
    113: _Kind("accelerometer", 2, 1_000, is_signed=True, parts=_AXES),  # g
    115: _Kind("barometric_pressure", 2, 10),  # hPa
    116: _Kind("voltage", 2, 100),  # V
    117: _Kind("current", 2, 1_000),  # A
    118: _Kind("frequency", 4),  # Hz
    120: _Kind("percentage", 1),
    121: _Kind("altitude", 2, is_signed=True),  # m
    125: _Kind("concentration", 2),  # ppm
    128: _Kind("power", 2),  # W
    130: _Kind("distance", 4, 1_000),  # m
    131: _Kind("energy", 4, 1_000),  # kWh
    132: _Kind("direction", 2),  # degrees
    133: _Kind("unix_time", 4),  # s
    134: _Kind("gyrometer", 2, 100, is_signed=True, parts=_AXES),  # degrees a second
    135: _Kind("colour", 1, parts=_COLOUR),
    136: _Kind("gps", 3, is_signed=True, parts=_PLACE, divisors=(10_000, 10_000, 100)),  # degrees, m
    142: _Kind("switch", 1),
}
_HEAD = 2  # channel and type


def decode(content: bytes) -> Told:
    """Give the values of a payload, by type and channel.

    A type that is not known has no length that is known: what came before it is kept, the rest is told as a warning.

    Raises:
        Refused: nothing of it can be read.
    """
    told, at = Told({}), 0
    while at < len(content):
        kind = KINDS.get(content[at + 1]) if at + 1 < len(content) else None
        end = at + _HEAD + kind.size * max(1, len(kind.parts)) if kind is not None else 0
        if kind is None or end > len(content):
            told.warnings.append(_say(content, at, kind))
            break
        told.data[f"{kind.name}_{content[at]}"] = _value(kind, content[at + _HEAD : end])
        at = end
    if told.warnings and not told.data:
        raise Refused("codec", f"Cayenne LPP: {told.warnings[0]}")
    told.is_partial = bool(told.warnings)
    return told


def _value(kind: _Kind, content: bytes) -> Any:
    numbers = [
        int.from_bytes(content[at : at + kind.size], signed=kind.is_signed) for at in range(0, len(content), kind.size)
    ]
    divisors = kind.divisors or (kind.divisor,) * len(numbers)
    values = [number / divisor for number, divisor in zip(numbers, divisors, strict=True)]
    return dict(zip(kind.parts, values, strict=True)) if kind.parts else values[0]


def _say(content: bytes, at: int, kind: _Kind | None) -> str:
    if kind is not None:
        return f"{kind.name} at byte {at} is cut off"
    return f"type {content[at + 1]} at byte {at} is not known" if at + 1 < len(content) else f"byte {at} is left over"
