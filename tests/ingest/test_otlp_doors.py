"""OTLP's path as its exporters see it: encodings, partial success, what they repeat and what not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from werkzeug.test import TestResponse

from ingest.intake import ABSENT
from ingest.protocols import PROTOCOLS
from ingest.protocols.base import MAX_RECORDS, Context
from ingest.protocols.otlp import messages
from ingest.spool.reader import SpoolReader
from tests.ingest.intake_support import SECRET, SHARED, FakeRegistry

JSON, PROTOBUF = {"Content-Type": "application/json"}, {"Content-Type": "application/x-protobuf"}
NOW_NS = 1_772_600_000_123_456_789

PROTOCOL = "otlp"
Post = Callable[..., TestResponse]


@pytest.fixture
def post(app: Flask) -> Post:
    def send(content: bytes, headers: dict[str, str] = PROTOBUF, bearer: str = f"d1.{SECRET}") -> TestResponse:
        return app.test_client().post(
            "/v1/metrics", data=content, headers=headers | {"Authorization": f"Bearer {bearer}"}
        )

    return send


def gauge(*values: float) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="temp")
    metric.gauge.SetInParent()
    for value in values:
        metric.gauge.data_points.add(time_unix_nano=NOW_NS, as_double=value)
    return request


GOOD = gauge(21.5).SerializeToString()
IN_JSON = b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"temp","gauge":{"dataPoints":[{"timeUnixNano":"1772600000123456789","asDouble":%s}]}}]}]}]}'


def spooled(folder: Path) -> list[Any]:
    return SpoolReader(folder / "spool", {}).take(100).readings


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (GOOD, PROTOBUF),
        (gzip.compress(GOOD), PROTOBUF | {"Content-Encoding": "gzip"}),
        (IN_JSON % b"21.5", JSON),
        (b"\n" + IN_JSON % b"21.5", {"Content-Type": "application/json; charset=utf-8"}),
    ],
    ids=range(4),
)
def test_request_is_answered_in_its_encoding(
    post: Post, tmp_path: Path, content: bytes, headers: dict[str, str]
) -> None:
    answer = post(content, headers)

    assert (answer.status_code, answer.data) == (200, b"{}" if "json" in headers["Content-Type"] else b"")
    assert answer.headers["Content-Type"] == headers["Content-Type"].partition(";")[0]
    (reading,) = spooled(tmp_path)
    assert (reading.measurement, reading.fields, reading.time_ns) == ("temp", {"value": 21.5}, NOW_NS)


def test_points_that_are_not_stored_are_told_and_their_neighbours_kept(post: Post, tmp_path: Path) -> None:
    answer = post(gauge(1.0, float("nan"), 2.0, float("inf")).SerializeToString())

    told = ExportMetricsServiceResponse.FromString(answer.data).partial_success
    assert (answer.status_code, told.rejected_data_points) == (200, 2)
    assert told.error_message.startswith("data point 2: not a finite number (nonfinite); 2 accepted, 2 kept")
    assert [reading.fields["value"] for reading in spooled(tmp_path)] == [1.0, 2.0]

    in_json = post(IN_JSON % b'"NaN"', JSON).get_json()["partialSuccess"]
    assert in_json["rejectedDataPoints"] == "1"


def test_field_that_is_left_out_is_a_warning(post: Post) -> None:
    request = gauge()
    metric = request.resource_metrics[0].scope_metrics[0].metrics.add(name="h")
    metric.histogram.data_points.add(time_unix_nano=NOW_NS, count=2, sum=float("inf"))

    told = ExportMetricsServiceResponse.FromString(post(request.SerializeToString()).data).partial_success

    assert (told.rejected_data_points, "nonfinite" in told.error_message) == (0, True)


@pytest.mark.parametrize("content", [b"", gauge().SerializeToString()])
def test_request_without_points_is_taken(post: Post, content: bytes) -> None:
    assert (post(content).status_code, post(content).data) == (200, b"")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (GOOD[:-3], PROTOBUF, 400),
        (b"{", JSON, 400),
        (b'{"resourceMetrics":[{"scopeMetrics":7}]}', JSON, 400),
        (b"[" * 2_000, JSON, 400),
        (GOOD, PROTOBUF | {"Content-Encoding": "gzip"}, 400),
        (GOOD, {"Content-Type": "text/plain"}, 415),
        (b"\0" * (1024 * 1024 + 1), PROTOBUF, 413),
        (gauge(*[1.0] * (MAX_RECORDS + 1)).SerializeToString(), PROTOBUF, 413),
    ],
    ids=range(8),
)
def test_what_must_not_be_repeated(
    post: Post, tmp_path: Path, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = post(content, headers)

    assert answer.status_code == status
    told = messages.Status.FromString(answer.data) if headers["Content-Type"] == PROTOBUF["Content-Type"] else None
    assert told.message if told is not None else answer.get_json()["message"]
    assert spooled(tmp_path) == []


def test_strangers_and_limits(post: Post, registry: FakeRegistry) -> None:
    registry.limit_tenant("default", "1:3600")
    assert post(GOOD, bearer="d1.wrong").status_code == 401
    assert post(GOOD).status_code == 200

    answer = post(GOOD)

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3600")
    assert messages.Status.FromString(answer.data).code == 8
    registry.is_away = True
    registry.add("d2")
    away = post(IN_JSON % b"1", JSON, bearer=f"d2.{SECRET}")
    assert (away.status_code, away.headers["Retry-After"], away.get_json()["code"]) == (503, "1", 14)


def test_held_device_is_told_of_success(post: Post, registry: FakeRegistry) -> None:
    registry.add("d3", state="held")

    assert (post(GOOD, bearer=f"d3.{SECRET}").status_code, post(GOOD, bearer=f"d3.{SECRET}").data) == (200, b"")


def test_attributes_that_points_share_cannot_make_a_request_grow_without_bound() -> None:
    request = gauge(*[1.0] * 20_000)
    for number in range(60):
        value = common_pb2.AnyValue(string_value="x" * 1_000)
        request.resource_metrics[0].resource.attributes.add(key=f"k{number}", value=value)

    decoded = PROTOCOLS["otlp"].decode(request.SerializeToString(), Context(NOW_NS))

    assert ([fault.code for fault in decoded.faults], decoded.is_unreadable) == (["too_large"], True)


def test_value_that_is_gone_is_counted_and_none(post: Post) -> None:
    request = gauge(1.0)
    request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].flags = 1

    decoded = PROTOCOLS["otlp"].decode(request.SerializeToString(), Context(NOW_NS))

    assert (decoded.records, decoded.faults, decoded.absent, decoded.is_event) == ([], [], 1, True)
    before = ABSENT.labels("otlp")._value.get()
    assert (post(request.SerializeToString()).status_code, post(request.SerializeToString()).data) == (200, b"")
    assert ABSENT.labels("otlp")._value.get() == before + 2


def test_request_without_points_is_taken_at_the_path_of_all_protocols(app: Flask) -> None:
    headers = PROTOBUF | {"Authorization": f"Bearer d1.{SECRET}"}

    answer = app.test_client().post("/v1/telemetry/otlp", data=b"", headers=headers)

    assert (answer.status_code, answer.get_json()) == (202, {"accepted": 0, "quarantined": []})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("NumberPoint", metrics_pb2.NumberDataPoint),
        ("HistogramPoint", metrics_pb2.HistogramDataPoint),
        ("ExponentialPoint", metrics_pb2.ExponentialHistogramDataPoint),
        ("Buckets", metrics_pb2.ExponentialHistogramDataPoint.Buckets),
        ("SummaryPoint", metrics_pb2.SummaryDataPoint),
        ("Quantile", metrics_pb2.SummaryDataPoint.ValueAtQuantile),
        ("Metric", metrics_pb2.Metric),
        ("ScopeMetrics", metrics_pb2.ScopeMetrics),
        ("ResourceMetrics", metrics_pb2.ResourceMetrics),
        ("Scope", common_pb2.InstrumentationScope),
        ("KeyValue", common_pb2.KeyValue),
        ("AnyValue", common_pb2.AnyValue),
    ],
)
def test_fields_are_declared_as_opentelemetry_does(ours: str, theirs: Any) -> None:
    declared = messages.CLASSES[ours].DESCRIPTOR.fields
    real = theirs.DESCRIPTOR.fields_by_name

    assert [(field.number, field.type) for field in declared] == [
        (real[field.name].number, real[field.name].type) for field in declared
    ]


def test_example_of_the_specification() -> None:
    folder = SHARED / "otlp_http/spec_example"
    if not folder.is_dir():
        pytest.skip("the shared fixtures are not here")
    expected = json.loads((folder / "expected.json").read_text())["points"]

    records = PROTOCOLS["otlp"].decode((folder / "input.json").read_bytes(), Context(NOW_NS)).records

    assert len(records) == len(expected)
    for record, point in zip(records, expected, strict=True):
        assert (record.measurement, record.time_ns) == (point["measurement"], 1_544_712_660_300_000_000)
        assert point["tags"].items() <= record.tags.items()
        assert point["fields"].items() <= record.fields.items()
