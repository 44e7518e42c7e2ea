"""The report of a run, as JSON and as a few lines for a person, and what it makes of the conditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from simulators.conditions import Condition
from simulators.stats import Durations
from simulators.tally import Tally
from simulators.verify import Verdict


def make_report(
    tally: Tally,
    verdict: Verdict | None,
    seed: int | None,
    settings: dict[str, Any],
    control: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Put the report together; what was not measured is null."""
    errors = dict(sorted(tally.errors.items()))
    if verdict is not None and verdict.incomplete:
        errors["incomplete"] = verdict.incomplete
    if verdict is not None and not verdict.drained:
        errors["not_drained"] = 1
    return {
        "sent": tally.sent,
        "acked": tally.acked,
        "stored": verdict.stored if verdict else None,
        "lost": verdict.lost if verdict else None,
        "duplicates": verdict.duplicates if verdict else None,
        "unacked": tally.sent - tally.acked,
        "quarantined": verdict.quarantined if verdict else tally.quarantined,
        "rate_s": round(tally.rate, 1),
        "ack_ms": tally.ack_ms.summary(),
        "visible_ms": tally.visible_ms.summary(),
        **(control or {"commands": None, "twin": None, "command_ms": Durations().summary()}),
        "errors": errors,
        "seed": seed,
        "settings": settings,
    }


def publish_report(report: dict[str, Any], path: Path | None, fail_if: Sequence[Condition]) -> bool:
    """Write the report to its file and the terminal; tell whether no condition came true."""
    text = orjson.dumps(report, option=orjson.OPT_INDENT_2).decode()
    if path is not None and str(path) != "-":
        path.write_text(text + "\n")
    print(text if str(path) == "-" else to_text(report))
    failures = [failure for condition in fail_if if (failure := condition.failure(report))]
    for failure in failures:
        print(f"FAILED {failure}")
    return not failures


def to_text(report: dict[str, Any]) -> str:
    """Write the report for a terminal."""
    counts = "  ".join(f"{name} {_show(report[name])}" for name in ("sent", "acked", "stored", "lost", "duplicates"))
    rest = "  ".join(f"{name} {_show(report[name])}" for name in ("unacked", "quarantined", "rate_s"))
    lines = [counts, rest, *(_times(name, report[f"{name}_ms"]) for name in ("ack", "visible", "command"))]
    lines += [_counts(name, report[name]) for name in ("commands", "twin") if report[name]]
    if report["errors"]:
        lines.append("errors  " + "  ".join(f"{name} {count:,}" for name, count in report["errors"].items()))
    return "\n".join(line for line in lines if line)


def _counts(name: str, counts: dict[str, int | None]) -> str:
    return f"{name}  " + "  ".join(f"{what} {_show(number)}" for what, number in counts.items())


def _times(name: str, times: dict[str, float | None]) -> str:
    if times["max"] is None:
        return ""
    return f"{name} ms  " + "  ".join(f"{part} {value:,.1f}" for part, value in times.items() if value is not None)


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"
