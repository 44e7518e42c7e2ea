"""Write requests of Prometheus."""

from __future__ import annotations

from typing import Any

from ingest.protocols.prometheus.messages import WriteRequest


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give each value as a series with one label."""
    request = WriteRequest()
    for name, value in values.items():
        series = request.timeseries.add()
        series.labels.add(name="__name__", value=name)
        series.labels.add(name="job", value="node")
        series.samples.add(value=value, timestamp=ms)
    return request.SerializeToString(), ""
