"""Faults that a simulated fleet commits on purpose: which, how often, and how a broken message looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from simulators.dice import Dice
from simulators.units import parse_duration, parse_share

LATE_MS = 5 * 60_000  # how far back a late reading lies
CLOCK_JUMPS_MS = (-3_600_000, -90_000, 90_000, 540_000)  # a wrong clock; ahead by less than a type takes at its word


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Shares of all readings (0 to 1, at most one fault a reading); `storm` is in seconds, 0 = none."""

    drop: float = 0.0  # numbered but never sent: a gap
    dup: float = 0.0  # sent twice
    late: float = 0.0  # carries a time minutes ago
    malformed: float = 0.0  # cannot be decoded
    clock: float = 0.0  # from here on the device's clock is off, or right again
    power: float = 0.0  # the device loses power: connection and message ids are gone, its queue is kept, a boot begins
    storm: float = 0.0  # time between two storms, in which all reconnect at once
    share: float = field(init=False, default=0.0, compare=False)  # of readings with any fault

    def __post_init__(self) -> None:
        share = self.drop + self.dup + self.late + self.malformed + self.clock + self.power
        if share > 1:
            raise ValueError(f"faults of {share:.0%} of all readings, limit 100%")
        object.__setattr__(self, "share", share)

    def pick(self, roll: float) -> str:
        """Turn a number in [0, 1) into the name of a fault; empty = none."""
        if roll >= self.share:
            return ""
        for name in _SHARES:
            roll -= getattr(self, name)
            if roll < 0:
                return name
        return ""


NAMES = tuple(spec.name for spec in fields(FaultRates) if spec.init)
_SHARES = tuple(name for name in NAMES if name != "storm")


def parse_faults(text: str) -> dict[str, float]:
    """Read `drop=1%,dup=1%,late=5%,malformed=0.1%,storm=30s`.

    Raises:
        ValueError: an unknown fault, a bad amount, or more than all readings.
    """
    parts = (piece.strip().partition("=") for piece in text.split(",") if piece.strip())
    return read_faults({name: amount for name, _, amount in parts})


def read_faults(amounts: Mapping[str, object]) -> dict[str, float]:
    """Read amounts by name, `storm` as a duration, all others as shares.

    Raises:
        ValueError: as `parse_faults`.
    """
    rates: dict[str, float] = {}
    for name, amount in amounts.items():
        if name not in NAMES:
            raise ValueError(f"unknown fault {name!r} (known: {', '.join(sorted(NAMES))})")
        try:
            rates[name] = parse_duration(str(amount)) if name == "storm" else parse_share(str(amount))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    FaultRates(**rates)
    return rates


def spoil(payload: bytes, dice: Dice, *, is_line: bool = False) -> bytes:
    """Turn a good message into one that no decoder can take as a reading.

    As a line among good ones (`is_line`) it stays UTF-8, so that it is at fault alone and not the whole body.
    """
    kind = dice.randrange(3 if is_line else 4)
    if kind == 0:
        cut = payload[: max(1, len(payload) * 2 // 3)]  # the radio went away
        return cut[: cut.rfind(b"=") + 1] or cut  # line protocol cut off elsewhere may be a shorter reading
    if kind == 1:
        return b"Guru Meditation Error: Core 1 panic'ed (LoadProhibited)"
    if kind == 2:  # noqa: PLR2004 - one of the four kinds
        return b'"' + payload.hex()[:64].encode() + b'"'  # JSON, but a bare string
    return b"\xff\xfe" + payload  # not UTF-8: the wrong buffer
