"""Times as devices write them, to ns since the epoch, and what to think of them. Never computes ns in floats."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from wire import clock
from wire.devices import DeviceType, DeviceTypeSpec
from wire.points import ALERTING, FUTURE, HISTORICAL, UNCERTAIN

Unit = Literal["auto", "s", "ms", "us", "ns"]

YEAR_2000_NS = 946_684_800 * clock.NS_PER_S  # an older time means a clock that was never set
NS_PER: dict[str, int] = {"s": clock.NS_PER_S, "ms": clock.NS_PER_MS, "us": 1_000, "ns": 1}
SECONDS_BELOW, MILLIS_BELOW, MICROS_BELOW = 10**11, 10**14, 10**17
UNIT_BOUND = 10**20  # beyond int64 ns in every unit; stops huge exponents before they become integers
EXACT_DIGITS = 17  # a float written with as many digits may have been rounded by the parser

_NUMBER = re.compile(r"-?\d{1,19}(?:\.\d{1,12})?")


class Policy(NamedTuple):
    """What a device type says of times, against that of arrival; None: any."""

    is_exact: bool
    skew_ns: int  # a clock ahead by no more is taken at its word
    ahead_ns: int | None  # further ahead: refused
    back_ns: int | None  # older: refused
    late_ns: int | None  # older: history
    late_flags: int = HISTORICAL

    def reach(self) -> tuple[int, int]:
        """Give how far before and after its arrival a time from 2000 on is taken as it is, whatever the policy."""
        back_ns = min((span for span in (self.back_ns, self.late_ns) if span is not None), default=clock.MAX_NS)
        return back_ns, self.skew_ns if self.ahead_ns is None else min(self.skew_ns, self.ahead_ns)


class OutsideWindow(Exception):  # noqa: N818 - an answer about the reading
    """A time that the device type does not take; `code` is a reason code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class Inexact(Exception):  # noqa: N818 - a signal to parse once more, exactly
    """A number that a float cannot hold as it was written."""


def read(token: Any, unit: Unit = "auto", *, is_exact: bool = True) -> tuple[int, bool]:
    """Read a time: a number in `unit` (`auto`: by magnitude), digits as text, or ISO 8601.

    Returns:
        ns since the epoch, and whether its zone is certain (an ISO text without offset is taken as UTC).

    Raises:
        ValueError: not a time, a fraction of a us or ns, or outside signed 64-bit ns.
        Inexact: a float that may have been rounded, unless `is_exact` says that there is nothing better.
    """
    kind = type(token)
    if kind is int:
        return _scale(token, unit), True
    if kind is float:
        return _read_float(token, unit, is_exact=is_exact), True
    if kind is Decimal:
        return _scale_fraction(token, unit), True
    if kind is not str:
        raise ValueError(f"a time is a number or an ISO 8601 text, not {_name(token)}")
    if _NUMBER.fullmatch(token):
        return _scale_fraction(Decimal(token), unit), True
    return clock.parse_rfc3339(token)


def ns_per(value: int, unit: Unit = "auto") -> int:
    """Give the ns of one unit of a whole number's time. From 2000 on, no time reads as one of another unit."""
    return NS_PER[_unit_of(value) if unit == "auto" else unit]


def policy_of(spec: DeviceType | None, *, is_exact: bool = False) -> Policy:
    """Give the policy of a device type, or of devices without one; `is_exact`: the protocol keeps times as given."""
    given = spec or _DEFAULTS
    return Policy(
        is_exact or given.time_policy == "exact",
        round(given.time_skew_s * clock.NS_PER_S),
        _to_ns(given.time_ahead_s), _to_ns(given.time_back_s), _to_ns(given.time_late_s),
        HISTORICAL | ALERTING if given.time_late_alerts else HISTORICAL,
    )  # fmt: skip


def place(time_ns: int, received_ns: int, policy: Policy) -> tuple[int | None, int]:
    """Judge a device's time against the arrival.

    Returns:
        The time to use (None: that of arrival, because the device's clock is not set), and flags of wire.points.

    Raises:
        OutsideWindow: the device type does not take it.
    """
    is_exact, skew_ns, most_ahead_ns, most_back_ns, late_ns, late_flags = policy
    ahead_ns = time_ns - received_ns
    if most_ahead_ns is not None and ahead_ns > most_ahead_ns:
        raise OutsideWindow("too_new", f"{_say(ahead_ns)} ahead of its arrival, limit {_say(most_ahead_ns)}")
    if ahead_ns > skew_ns:
        return (time_ns, UNCERTAIN | FUTURE) if is_exact else (None, UNCERTAIN)
    if time_ns < YEAR_2000_NS and not is_exact:
        return None, UNCERTAIN
    if most_back_ns is not None and -ahead_ns > most_back_ns:
        raise OutsideWindow("too_old", f"{_say(-ahead_ns)} before its arrival, limit {_say(most_back_ns)}")
    return time_ns, late_flags if late_ns is not None and -ahead_ns > late_ns else 0


def _to_ns(span_s: float | None) -> int | None:
    return None if span_s is None else round(span_s * clock.NS_PER_S)


def _say(span_ns: int) -> str:
    return f"{span_ns / clock.NS_PER_S:.15g} s"


def _read_float(value: float, unit: Unit, *, is_exact: bool) -> int:
    text = repr(value)
    if not is_exact and len(text) > EXACT_DIGITS:
        raise Inexact
    if text[-1] in "fn":  # inf, nan
        raise ValueError("a time that is not a finite number")
    return _scale_fraction(Decimal(text), unit)


def _scale_fraction(value: Decimal, unit: Unit) -> int:
    if not value.is_finite() or not -UNIT_BOUND < value < UNIT_BOUND:  # abs() would overflow the decimal context
        raise ValueError("time outside signed 64-bit ns")
    whole = int(value)
    if value == whole:
        return _scale(whole, unit)
    chosen = _unit_of(whole) if unit == "auto" else unit
    if chosen in ("us", "ns"):
        raise ValueError(f"a fraction of a {chosen}: fractions are for s and ms")
    return _check(int(value * NS_PER[chosen]))


def _scale(value: int, unit: Unit) -> int:
    return _check(value * NS_PER[_unit_of(value) if unit == "auto" else unit])


def _unit_of(value: int) -> str:
    size = abs(value)
    if size < SECONDS_BELOW:
        return "s"
    if size < MILLIS_BELOW:
        return "ms"
    return "us" if size < MICROS_BELOW else "ns"


def _check(time_ns: int) -> int:
    if not clock.MIN_NS <= time_ns <= clock.MAX_NS:
        raise ValueError("time outside signed 64-bit ns")
    return time_ns


def _name(token: Any) -> str:
    return {bool: "a boolean", dict: "an object", list: "an array"}.get(type(token), "that")


_DEFAULTS = DeviceTypeSpec()
GUARDED = policy_of(None)
