"""Faults that a simulated fleet commits on purpose: which, how often, and how a broken message looks."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

from simulators.units import parse_duration, parse_share

LATE_MS = 5 * 60_000  # how far back a late reading lies


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Shares of all readings (0 to 1); `storm` is the time between two storms of reconnects, in seconds, 0 = none."""

    drop: float = 0.0  # numbered but never sent: a gap
    dup: float = 0.0  # sent twice
    late: float = 0.0  # carries a time minutes ago
    malformed: float = 0.0  # cannot be decoded
    storm: float = 0.0


def parse_faults(text: str) -> FaultRates:
    """Read `drop=1%,dup=1%,late=5%,malformed=0.1%,storm=30s`.

    Raises:
        ValueError: an unknown fault or a bad amount.
    """
    known = {spec.name for spec in fields(FaultRates)}
    rates: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, amount = part.partition("=")
        if name not in known:
            raise ValueError(f"unknown fault {name!r} (known: {', '.join(sorted(known))})")
        rates[name] = parse_duration(amount) if name == "storm" else parse_share(amount)
    return FaultRates(**rates)


def spoil(payload: bytes, rng: random.Random, *, is_line: bool = False) -> bytes:
    """Turn a good message into one that no decoder of JSON can take as a reading.

    As a line among good ones (`is_line`) it stays UTF-8, so that it is at fault alone and not the whole body.
    """
    kind = rng.randrange(3 if is_line else 4)
    if kind == 0:
        return payload[: max(1, len(payload) * 2 // 3)]  # cut off: the radio went away
    if kind == 1:
        return b"Guru Meditation Error: Core 1 panic'ed (LoadProhibited)"
    if kind == 2:  # noqa: PLR2004 - one of the four kinds
        return b'"' + payload.hex()[:64].encode() + b'"'  # JSON, but a bare string
    return b"\xff\xfe" + payload  # not UTF-8: the wrong buffer
