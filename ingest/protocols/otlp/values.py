"""What the kinds of data points of OTLP are as fields. Knows no record."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import orjson

from ingest.protocols.flatten import Refused, check_text
from wire.points import FieldValue

NO_RECORDED_VALUE = 1  # a flag: there was a value before, and there is none now
Taken = tuple[dict[str, FieldValue], list[tuple[str, str, str]]]  # fields; name, code and detail of those at fault


def _number(point: Any) -> Taken:
    kind = point.WhichOneof("value")
    if kind is None:
        raise Refused("no_values", "a data point without a value")
    return _sifted({"value": getattr(point, kind)})


def _histogram(point: Any) -> Taken:
    fields = _of_all(point)
    counts, bounds = list(point.bucket_counts), list(point.explicit_bounds)
    if not counts and not bounds:
        return _sifted(fields)
    if len(counts) != len(bounds) + 1:
        taken, faults = _sifted(fields)
        return taken, [*faults, ("buckets", "bad_value", f"{len(counts)} counts for {len(bounds)} bounds")]
    return _sifted(fields, buckets=list(zip([*bounds, None], counts, strict=True)))


def _exponential(point: Any) -> Taken:
    buckets = {"scale": point.scale, "zero_count": point.zero_count, "zero_threshold": point.zero_threshold}
    for side in ("positive", "negative"):
        given = getattr(point, side)
        buckets[side] = {"offset": given.offset, "counts": list(given.bucket_counts)}
    return _sifted(_of_all(point), buckets=buckets)


def _summary(point: Any) -> Taken:
    quantiles = [(each.quantile, each.value) for each in point.quantile_values]
    return _sifted({"count": point.count, "sum": point.sum}, **({"quantiles": quantiles} if quantiles else {}))


def _of_all(point: Any) -> dict[str, Any]:
    given = {name: getattr(point, name) for name in ("sum", "min", "max") if point.HasField(name)}
    return {"count": point.count} | given


def _sifted(fields: dict[str, Any], **containers: Any) -> Taken:
    """Take out what is no finite number; containers become JSON."""
    faults = []
    for name in [name for name, value in fields.items() if not math.isfinite(value)]:
        del fields[name]
        faults.append((name, "nonfinite", "not a finite number"))
    for name, container in containers.items():
        text = orjson.dumps(container).decode()
        fault = check_text(text)
        if fault is None:
            fields[name] = text
        else:
            faults.append((name, *fault))
    return fields, faults


READERS: dict[str, Callable[[Any], Taken]] = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}
