"""Sparkplug's data messages."""

from __future__ import annotations

from typing import Any

from ingest.protocols.sparkplug.messages import Payload


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give each value as a metric, under its name."""
    payload = Payload(timestamp=ms, seq=1)
    for name, value in values.items():
        is_float = isinstance(value, float)
        metric = payload.metrics.add(name=name, datatype=10 if is_float else 4)
        setattr(metric, "double_value" if is_float else "long_value", value)
    return payload.SerializeToString(), "spBv1.0/g/NDATA/n"
