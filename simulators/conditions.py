"""Conditions on a report that fail a run: `lost>0,ack_p99>500ms`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

COUNTS = ("sent", "acked", "stored", "lost", "duplicates", "unacked", "quarantined", "rate_s")
NEED_VERIFY = frozenset({"stored", "lost", "duplicates", "commands.lost"})
TIMES = tuple(f"{what}_{part}" for what in ("ack", "visible", "command") for part in ("p50", "p95", "p99", "max"))
CONTROL = {  # counted where devices are told something; see simulators.control
    "commands": (
        "sent",
        "refused",
        "received",
        "repeated",
        "succeeded",
        "failed",
        "late",
        "never",
        "answered",
        "malformed",
        "lost",
    ),
    "twin": ("sent", "refused", "desired", "repeated", "reported", "malformed"),
}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_CONTROL_NAMES = tuple(f"{part}.{name}" for part, names in CONTROL.items() for name in names)
_FORM = re.compile(r"([a-z0-9_.]+)\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)?)\s*(ms|s)?")


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison that must not come true; times are in ms."""

    text: str
    name: str
    sign: str
    limit: float

    def failure(self, report: Mapping[str, Any]) -> str | None:
        """Say why the run fails; None when it does not. A value that was not measured fails too."""
        value = _lookup(report, self.name)
        if value is None:
            return f"{self.text}: {self.name} was not measured"
        return f"{self.text}: {self.name} is {value:g}" if _COMPARE[self.sign](value, self.limit) else None


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Read conditions parted by commas.

    Raises:
        ValueError: not of the form `name>number`, an unknown name, or a unit that does not fit.
    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(text: str) -> Condition:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"not a condition: {text!r} (write lost>0 or ack_p99>500ms)")
    name, sign, number, unit = match.groups()
    is_known = name in COUNTS or name in TIMES or name in _CONTROL_NAMES or name.split(".")[0] == "errors"
    if not is_known:
        known = (*COUNTS, "errors", "errors.<name>", *TIMES, *_CONTROL_NAMES)
        raise ValueError(f"unknown name {name!r} in {text!r} (known: {', '.join(known)})")
    if unit and name not in TIMES:
        raise ValueError(f"{name} is not a time: {text!r}")
    return Condition(text, name, sign, float(number) * (1000 if unit == "s" else 1))


def _lookup(report: Mapping[str, Any], name: str) -> float | None:
    if name in TIMES:
        what, _, part = name.partition("_")
        value = (report[f"{what}_ms"] or {}).get(part)
    elif name == "errors":
        value = sum(report["errors"].values())
    elif name in _CONTROL_NAMES:
        part, _, what = name.partition(".")
        value = (report[part] or {}).get(what)
    elif name.startswith("errors."):
        value = report["errors"].get(name.removeprefix("errors."), 0)
    else:
        value = report[name]
    return None if value is None else float(value)
