"""How values, times and bytes look on a page. Pure functions, used as Jinja filters; scripts format alike."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from wire import clock
from wire.clock import NS_PER_S

SIGNIFICANT = 6
SPANS = 5
WHOLE = range(10**SIGNIFICANT, 10**15)  # size of floats that are written to the unit instead
PREVIEW_CHARACTERS = 600
PREVIEW_BYTES = 240  # of what is no text
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
SMALL_S = 0.0005
THOUSAND = 1_000
UNITS = {
    "Cel": "\N{DEGREE SIGN}C", "deg": "\N{DEGREE SIGN}", "%RH": "%", "Ohm": "\u03a9", "m2": "m\u00b2", "m3": "m\u00b3",
    "m3/h": "m\u00b3/h", "m3/s": "m\u00b3/s", "1/min": "min\u207b\u00b9", "g/m3": "g/m\u00b3", "kg/m3": "kg/m\u00b3",
    "m/s2": "m/s\u00b2", "W/m2": "W/m\u00b2", "uS/cm": "\u00b5S/cm", "ug/m3": "\u00b5g/m\u00b3",
}  # fmt: skip
UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_.:/*-]+", re.ASCII)  # needs no quotation marks in a query
NARROW = "\N{NARROW NO-BREAK SPACE}"


def value(shown: Any) -> str:
    """Write a field's value: floats to six significant digits and at least to the unit, the rest as it is."""
    if shown is None:
        return "\N{EN DASH}"
    if isinstance(shown, bool):
        return "true" if shown else "false"
    if not isinstance(shown, float):
        return str(shown)
    if WHOLE.start <= abs(shown) < WHOLE.stop:
        return f"{shown:.0f}"  # a meter's count does not lose its last digits
    text = repr(float(f"{shown:.{SIGNIFICANT}g}"))
    return text.removesuffix(".0")


def unit(shown: str) -> str:
    """Write a unit for people where SenML's name of it (RFC 8428 s. 12.1) is one for programs."""
    return UNITS.get(shown, shown)


def count(shown: float | None) -> str:
    """Write a count with separators; a dash when it is not known."""
    return "\N{EN DASH}" if shown is None else f"{shown:,.0f}"


def size(shown: int) -> str:
    """Write a number of bytes in the decimal unit that leaves one to three digits before the point."""
    amount, units = float(shown), iter(("bytes", "kB", "MB", "GB", "TB"))
    name = next(units)
    while round(amount) >= THOUSAND and (larger := next(units, "")):
        amount, name = amount / THOUSAND, larger
    return f"{amount:,.0f} {name}" if name == "bytes" or amount >= 100 else f"{amount:,.1f} {name}"  # noqa: PLR2004


def rate(shown: float | None) -> str:
    """Write a rate: one decimal while it is small."""
    if shown is None:
        return "\N{EN DASH}"
    return f"{shown:,.1f}" if shown < 100 else f"{shown:,.0f}"  # noqa: PLR2004 - two digits before the point


def seconds(shown: float | None) -> str:
    """Write a duration in the unit that fits."""
    if shown is None:
        return "\N{EN DASH}"
    if shown < SMALL_S:
        return f"0{NARROW}s"
    if shown < 1:
        return f"{shown * 1000:.0f}{NARROW}ms"
    return f"{shown:.1f}{NARROW}s" if shown < MINUTE_S else ago(shown)


def ago(elapsed_s: float) -> str:
    """Write an age in its largest unit."""
    if elapsed_s < 2:  # noqa: PLR2004 - what is live reads "now"
        return "now"
    for unit_s, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if elapsed_s >= unit_s:
            return f"{int(elapsed_s // unit_s)}{NARROW}{unit} ago"
    return f"{int(elapsed_s)}{NARROW}s ago"


def since(moment: Any) -> str:
    """Write how long ago a time was, given in ns or RFC 3339."""
    time_ns = to_ns(moment)
    return "never" if time_ns is None else ago((clock.now_ns() - time_ns) / NS_PER_S)


def moment(shown: Any) -> str:
    """Write a time for people: UTC to the second."""
    time_ns = to_ns(shown)
    return "" if time_ns is None else clock.format_ns(time_ns)[:19].replace("T", " ") + " UTC"


def iso(shown: Any) -> str:
    """Write a time for scripts: RFC 3339, in ms as they count."""
    time_ns = to_ns(shown)
    return "" if time_ns is None else clock.format_ns(time_ns)[:23] + "Z"


def spans(boot: Mapping[str, Any]) -> str:
    """Write the first gaps of a boot's numbers, and that there are more."""
    shown = [f"{first}" if first == last else f"{first}\N{EN DASH}{last}" for first, last in boot["missing_ranges"]]
    is_cut = boot["is_truncated"] or len(shown) > SPANS
    return ", ".join(shown[:SPANS]) + (" \N{HORIZONTAL ELLIPSIS}" if is_cut else "")


def given(filters: Mapping[str, str]) -> dict[str, str]:
    """Leave out the empty ones of a form's fields."""
    return {name: text for name, text in filters.items() if text}


def to_ns(shown: Any) -> int | None:
    """Read a time in ns or RFC 3339; None when there is none."""
    if shown is None or isinstance(shown, int):
        return shown
    try:
        return clock.parse_time(str(shown))
    except ValueError:
        return None


def quoted(text: str) -> str:
    """Write a text as a value of the query language."""
    if _PLAIN_VALUE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def preview(entry: Mapping[str, Any]) -> str:
    """Show the beginning of a quarantined message: as text where it is text, else in hex."""
    try:
        raw = base64.b64decode(entry.get("raw_base64") or "")
    except (binascii.Error, ValueError):
        return ""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        shown = raw[:PREVIEW_BYTES].hex(" ")
        return f"{shown} \N{HORIZONTAL ELLIPSIS}" if len(raw) > PREVIEW_BYTES else shown
    text = "".join(letter if letter.isprintable() or letter in "\n\t" else UNPRINTABLE for letter in text)
    return f"{text[:PREVIEW_CHARACTERS]} \N{HORIZONTAL ELLIPSIS}" if len(text) > PREVIEW_CHARACTERS else text


def plain(shown: Any) -> str:
    """Write a member of a device type: JSON without quotes round a text; nothing is a dash."""
    if shown is None:
        return "\N{EN DASH}"
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


FILTERS: dict[str, Callable[..., Any]] = {
    "value": value, "count": count, "rate": rate, "seconds": seconds, "since": since, "moment": moment,
    "preview": preview, "spans": spans, "iso": iso, "given": given, "unit": unit, "quoted": quoted, "plain": plain,
    "size": size,
}  # fmt: skip
