"""Export requests of OpenTelemetry's metrics."""

from __future__ import annotations

from typing import Any

from ingest.protocols.otlp.messages import Request
from wire import clock


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give each value as a gauge with one attribute."""
    request = Request()
    scope = request.resource_metrics.add().scope_metrics.add()
    for name, value in values.items():
        point = scope.metrics.add(name=name).gauge.data_points.add(time_unix_nano=ms * clock.NS_PER_MS)
        setattr(point, "as_double" if isinstance(value, float) else "as_int", value)
        point.attributes.add(key="room").value.string_value = "lab"
    return request.SerializeToString(), ""
