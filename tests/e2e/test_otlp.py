"""OpenTelemetry's own exporter against a whole installation."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
NEVER_MS = float("inf")  # exports only when it is told to


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip], ids=str)
def test_exporter_of_opentelemetry_writes(installation: Installation, device: Device, compression: Compression) -> None:
    exporter = OTLPMetricExporter(
        f"{installation.url}/v1/metrics", headers={"Authorization": f"Bearer {device.bearer}"}, compression=compression
    )
    outcomes: list[MetricExportResult] = []
    export = exporter.export
    exporter.export = lambda *given, **more: outcomes.append(export(*given, **more)) or outcomes[-1]  # type: ignore[assignment]
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=NEVER_MS)
    provider = MeterProvider([reader], Resource({"service.name": "kiln"}))
    meter = provider.get_meter("burner")

    meter.create_gauge("temp", "Cel").set(21.5, {"room": "lab"})
    meter.create_counter("turns").add(3)
    meter.create_histogram("took").record(0.25)
    provider.force_flush()
    provider.shutdown()

    assert outcomes == [MetricExportResult.SUCCESS]
    tags = {"service.name": "kiln", "otel.scope.name": "burner"}
    found = points(installation, device, 3)
    assert found["temp"] == (tags | {"room": "lab"}, {"value": 21.5})
    assert found["turns"] == (tags, {"value": 3})
    assert found["took"][1] | {"buckets": ""} == {"count": 1, "sum": 0.25, "min": 0.25, "max": 0.25, "buckets": ""}
    assert found["took"][1]["buckets"].startswith("[[0.0,0],[5.0,1],")


def points(installation: Installation, device: Device, count: int) -> dict[str, Any]:
    """Wait for that many points: tags and fields by measurement."""
    found = wait_until(
        lambda: points if len(points := installation.points(device.id)) >= count else None, 10, what=f"{count} points"
    )
    return {point["measurement"]: (point["tags"], point["fields"]) for point in found}
