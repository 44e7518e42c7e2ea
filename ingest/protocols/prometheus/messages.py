"""Remote write's messages as far as they are read (Prometheus, prompb/remote.proto and types.proto)."""

from __future__ import annotations

from typing import Any

from ingest.protocols import protobuf

_F = protobuf.Field
_CLASSES = protobuf.declare(
    "headwater.prometheus",
    {
        "WriteRequest": [_F(1, "timeseries", "TimeSeries", is_many=True)],
        "TimeSeries": [
            _F(1, "labels", "Label", is_many=True),
            _F(2, "samples", "Sample", is_many=True),
            _F(4, "histograms", "Histogram", is_many=True),
        ],
        "Label": [_F(1, "name", "string"), _F(2, "value", "string")],
        "Sample": [_F(1, "value", "double"), _F(2, "timestamp", "i64")],
        "Histogram": [_F(15, "timestamp", "i64")],
    },
)
WriteRequest: Any = _CLASSES["WriteRequest"]


def parse(content: bytes) -> Any:
    """Parse a request, not compressed. Raises Unreadable."""
    return protobuf.read(WriteRequest, content, "a remote-write request of Prometheus")
