"""Prometheus' path as its agents see it: what they repeat and what not, and what must not harm."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cramjam
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import MAX_INFLATED_BYTES, MAX_RECORDS, Context
from ingest.protocols.prometheus.messages import WriteRequest
from ingest.spool.reader import SpoolReader
from tests.ingest.intake_support import SECRET, SHARED, FakeRegistry

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "Prometheus/2.42.0",
    "Authorization": f"Bearer d1.{SECRET}",
}
NOW_MS = 1_772_600_000_123
STALE = struct.unpack(">d", bytes.fromhex("7ff0000000000002"))[0]
# {__name__="up",job="n"} 1 @ 1772600000123, written by hand from the field numbers of prompb/types.proto
BY_HAND = bytes.fromhex(
    "0a2c0a0e 0a08 5f5f6e616d655f5f 1202 75700a08 0a03 6a6f62 1201 6e1210 09 000000000000f03f 10 fbfcc5b9cb33"
)


PROTOCOL = "prometheus"
Post = Callable[..., TestResponse]


@pytest.fixture
def post(app: Flask) -> Post:
    def send(content: bytes, **headers: str) -> TestResponse:
        given = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        return app.test_client().post("/api/v1/write", data=content, headers=given)

    return send


def packed(content: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(content))


def series(*values: float, **labels: str) -> bytes:
    request = WriteRequest()
    one = request.timeseries.add()
    for name, value in ({"__name__": "up"} | labels).items():
        one.labels.add(name=name, value=value)
    for value in values:
        one.samples.add(value=value, timestamp=NOW_MS)
    content: bytes = request.SerializeToString()
    return content


def spooled(folder: Path) -> list[Any]:
    return SpoolReader(folder / "spool", {}).take(100).readings


def test_request_is_taken(post: Post, tmp_path: Path) -> None:
    answer = post(packed(series(1.5, job="n")))

    assert (answer.status_code, answer.data) == (204, b"")
    (reading,) = spooled(tmp_path)
    assert (reading.measurement, reading.tags, reading.fields) == ("up", {"job": "n"}, {"value": 1.5})
    assert reading.time_ns == NOW_MS * 1_000_000


def test_fields_are_those_of_prometheus() -> None:
    (record,) = PROTOCOLS["prometheus"].decode(BY_HAND, Context(0)).records

    assert (record.measurement, record.tags, record.fields) == ("up", {"job": "n"}, {"value": 1.0})
    assert record.time_ns == NOW_MS * 1_000_000


def test_good_samples_are_kept_and_the_first_bad_one_is_named(post: Post, tmp_path: Path) -> None:
    answer = post(packed(series(1.0, float("nan"), 2.0, float("-inf"))))

    assert (answer.status_code, answer.get_json()["errorType"]) == (400, "bad_data")
    assert answer.get_json()["error"].startswith("sample 2: not a finite number (nonfinite); 2 accepted, 2 kept")
    assert [reading.fields["value"] for reading in spooled(tmp_path)] == [1.0, 2.0]


def test_series_that_ended_is_no_fault(post: Post, tmp_path: Path) -> None:
    assert post(packed(series(STALE))).status_code == 204
    assert post(packed(series(STALE, 3.0))).status_code == 204

    assert [reading.fields for reading in spooled(tmp_path)] == [{"value": 3.0}]
    assert PROTOCOLS["prometheus"].decode(series(STALE, 1.0), Context(0)).absent == 1


def test_empty_request_is_taken(post: Post) -> None:
    assert post(packed(b"")).status_code == 204


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {}, 400),
        (series(1.0), {}, 400),
        (packed(series(1.0))[:-2], {}, 400),
        (packed(b"\xff\xff"), {}, 400),
        (packed(series(1.0)), {"Content_Encoding": "zstd"}, 415),
        (packed(series(1.0)), {"Content_Encoding": "identity"}, 415),
        (packed(series(1.0)), {"Content_Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}, 415),
        (packed(series(1.0)), {"Authorization": "Bearer d1.wrong"}, 401),
        (b"\xff\xff\xff\xff\x0f", {}, 413),
        (packed(b"\0" * (MAX_INFLATED_BYTES + 1)), {}, 413),
        (packed(series(*[1.0] * (MAX_RECORDS + 1))), {}, 413),
        (b"\0" * (1024 * 1024 + 1), {}, 413),
    ],
    ids=range(12),
)
def test_what_must_not_be_repeated(
    post: Post, tmp_path: Path, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = post(content, **headers)

    assert (answer.status_code, answer.get_json()["status"]) == (status, "error")
    assert spooled(tmp_path) == []


def test_version_1_may_be_named(post: Post) -> None:
    named = "application/x-protobuf;proto=prometheus.WriteRequest"

    assert post(packed(series(1.0)), Content_Type=named).status_code == 204


def test_what_may_be_repeated_is_a_503(post: Post, registry: FakeRegistry) -> None:
    registry.limit_tenant("default", "1:3600")
    assert post(packed(series(1.0))).status_code == 204

    limited = post(packed(series(1.0)))
    registry.is_away = True
    away = post(packed(series(1.0)), Authorization=f"Bearer d2.{SECRET}")

    assert (limited.status_code, limited.headers["Retry-After"]) == (503, "3600")
    assert (away.status_code, away.headers["Retry-After"]) == (503, "1")


def test_labels_cannot_make_a_request_grow_without_bound() -> None:
    labels = {f"k{number}": "x" * 1_000 for number in range(60)}

    decoded = PROTOCOLS["prometheus"].decode(series(*[1.0] * 20_000, **labels), Context(0))

    assert ([fault.code for fault in decoded.faults], decoded.is_unreadable) == (["too_large"], True)


@pytest.mark.parametrize(
    ("labels", "device"),
    [
        ({"instance": "a:9100", "host": "b"}, "prometheus:a:9100"),
        ({"device": "kiln", "instance": "a"}, "prometheus:kiln"),
        ({"host": "b"}, "prometheus:b"),
        ({"job": "n"}, None),
    ],
)
def test_gateway_names_devices_by_label(labels: dict[str, str], device: str | None) -> None:
    content, decode = series(1.0, **labels), PROTOCOLS["prometheus"].decode
    (named,) = decode(content, Context(0, is_gateway=True)).records
    (own,) = decode(content, Context(0)).records

    assert (named.device, own.device, own.tags) == (device, None, labels)
    assert len(named.tags) == len(labels) - (device is not None)


def test_example_of_telegraf() -> None:
    folder = SHARED / "prometheus_rw/simple"
    if not folder.is_dir():
        pytest.skip("the shared fixtures are not here")
    content = WriteRequest(**json.loads((folder / "input.json").read_text())).SerializeToString()

    records = PROTOCOLS["prometheus"].decode(content, Context(0)).records

    assert [(record.measurement, record.tags, record.fields, record.time_ns) for record in records] == [
        ("go_gc_duration_seconds", {"quantile": "0.99"}, {"value": 4.63}, 1_740_375_855_000_000),
        ("prometheus_target_interval_length_seconds", {"job": "prometheus"}, {"value": 14.99}, 1_740_375_855_000_000),
    ]
