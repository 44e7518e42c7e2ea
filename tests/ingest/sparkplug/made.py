"""Payloads of edge nodes, made for tests."""

from __future__ import annotations

from typing import Any

from ingest.protocols.sparkplug.messages import Payload

DAY_MS = 1_772_600_000_000
CARRIERS = {bool: "boolean_value", int: "long_value", float: "double_value", str: "string_value", bytes: "bytes_value"}
TYPES = {bool: 11, int: 4, float: 10, str: 12, bytes: 17}


def payload(seq: int | None = 0, time_ms: int | None = DAY_MS, **values: Any) -> Any:
    made = Payload()
    if seq is not None:
        made.seq = seq
    if time_ms is not None:
        made.timestamp = time_ms
    for name, value in values.items():
        add(made, name, value)
    return made


def add(made: Any, name: str | None, value: Any, *, alias: int | None = None, datatype: int | None = None) -> Any:
    """Add a metric; without `datatype` the type is that of the value, 0 leaves it out."""
    metric = made.metrics.add()
    if name is not None:
        metric.name = name
    if alias is not None:
        metric.alias = alias
    if datatype != 0:
        metric.datatype = TYPES[type(value)] if datatype is None else datatype
    setattr(metric, CARRIERS[type(value)], value)
    return metric


def birth(seq: int = 0, death_number: int = 0, time_ms: int = DAY_MS, **values: Any) -> bytes:
    made = payload(seq, time_ms, bdSeq=death_number, **values)
    content: bytes = made.SerializeToString()
    return content


def data(seq: int, time_ms: int = DAY_MS, **values: Any) -> bytes:
    content: bytes = payload(seq, time_ms, **values).SerializeToString()
    return content


def death(death_number: int = 0) -> bytes:
    content: bytes = payload(None, DAY_MS, bdSeq=death_number).SerializeToString()
    return content
