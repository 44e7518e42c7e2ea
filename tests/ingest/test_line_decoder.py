"""Line protocol: what an independent encoder writes comes back, lines stand for themselves, nothing costs much."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from influxdb_client import Point

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import MAX_RECORDS, Context, Decoded, Record
from wire import clock
from wire.devices import DeviceType
from wire.points import FUTURE, UNCERTAIN

NOW = 1_772_700_000 * clock.NS_PER_S

characters = st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs"))
names = st.text(characters, min_size=1, max_size=12).filter(lambda name: name[-1] != "\\")  # it cannot be written
measurements = names.filter(lambda name: name[0] != "#" and name[0] not in "\u00a0\u1680\u3000")
whole = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
strings = st.text(st.characters(codec="utf-8"), max_size=40)


def decode(content: str | bytes, context: Context | None = None) -> Decoded:
    return PROTOCOLS["line"].decode(
        content if isinstance(content, bytes) else content.encode(), context or Context(NOW)
    )


def only(content: str, context: Context | None = None) -> Record:
    decoded = decode(content, context)
    assert decoded.faults == []
    (record,) = decoded.records
    return record


def codes(decoded: Decoded) -> list[tuple[int, str]]:
    return [(fault.index, fault.code) for fault in decoded.faults]


@st.composite
def points(draw: st.DrawFn) -> tuple[Point, dict[str, str], dict[str, Any], int]:
    tags = draw(st.dictionaries(names, names, max_size=4))
    fields = draw(st.dictionaries(names, st.one_of(whole, floats, st.booleans(), strings), min_size=1, max_size=6))
    time_ns = draw(st.integers(clock.MIN_NS, clock.MAX_NS))
    point = Point(draw(measurements)).time(time_ns)
    for name, value in tags.items():
        point.tag(name, value)
    for name, value in fields.items():
        point.field(name, value)
    return point, tags, fields, time_ns


@given(st.lists(points(), min_size=1, max_size=4))
def test_points_of_the_official_client_come_back(written: list[Any]) -> None:
    decoded = decode("\n".join(point.to_line_protocol() for point, *_ in written))

    assert decoded.faults == []
    for record, (point, tags, fields, time_ns) in zip(decoded.records, written, strict=True):
        assert (record.measurement, record.tags, record.time_ns) == (point._name, tags, time_ns)
        assert {name: (type(value), value) for name, value in record.fields.items()} == {
            name: (type(value), value) for name, value in fields.items()
        }


@given(
    st.lists(points(), min_size=1, max_size=4), st.integers(0, 4), st.sampled_from(["m", "m a=", "m a=1,", "m,t= a=1"])
)
def test_bad_line_does_not_touch_its_neighbours(written: list[Any], place: int, bad: str) -> None:
    lines = [point.to_line_protocol() for point, *_ in written]
    place = min(place, len(lines))

    decoded = decode("\n".join([*lines[:place], bad, *lines[place:]]))

    assert len(decoded.records) == len(lines)
    assert codes(decoded) == [("\n".join([*lines[:place], ""]).count("\n"), "bad_syntax")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("m", "no field"),
        ("m a", "field 1 is not"),
        ("m a=1,b", "field 2 is not"),
        ('m a=1,b="x', "field 2 is a string without its closing quote"),
        ('m a="x"y', "behind field 1"),
        ("m a=1 noon", "behind field 1"),
        ("m a=0x1f", "'0x1f' is no number"),
        ("m,t=1,t=2 a=1", "stands there twice"),
        ("m,t a=1", "a tag is"),
    ],
)
def test_detail_says_what_is_wrong(line: str, said: str) -> None:
    (fault,) = decode(line).faults

    assert (fault.code, said in fault.detail) == ("bad_syntax", True), fault


@pytest.mark.parametrize(
    ("unit", "time_ns"),
    [("", 7), ("n", 7), ("ns", 7), ("u", 7_000), ("us", 7_000), ("ms", 7 * 10**6), ("s", 7 * 10**9), ("m", 420 * 10**9),
     ("h", 25_200 * 10**9)],
)  # fmt: skip
def test_path_says_the_unit_of_times(unit: str, time_ns: int) -> None:
    assert only("m a=1 7", Context(NOW, topic=f"precision={unit}" if unit else "")).time_ns == time_ns


def test_device_type_says_the_unit_where_no_path_does() -> None:
    spec = DeviceType(name="t", time_unit="ms")

    assert only("m a=1 7", Context(NOW, spec, topic="devices/d1/telemetry/line")).time_ns == 7_000_000
    assert only("m a=1 7", Context(NOW, spec, topic="precision=s")).time_ns == 7 * 10**9


def test_times_are_kept_as_they_are_given() -> None:
    ahead = NOW + 3_600 * clock.NS_PER_S

    assert only("m a=1 0").time_ns == 0
    assert only(f"m a=1 {ahead}").time_ns == ahead
    assert only(f"m a=1 {ahead}").flags == UNCERTAIN | FUTURE
    assert only("m a=1").time_ns is None


@pytest.mark.parametrize("time", ["9223372036854775808", "-9223372036854775809", "1" * 40])
def test_time_outside_64_bits_is_refused(time: str) -> None:
    assert codes(decode(f"m a=1 {time}")) == [(0, "bad_time")]


def test_line_that_is_not_utf8_costs_itself_only() -> None:
    decoded = decode(b'm a=1\nm s="\xff"\nm a=2\n')

    assert [record.index for record in decoded.records] == [0, 2]
    assert codes(decoded) == [(1, "bad_encoding")]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("m " + ",".join(f"f{n}=1" for n in range(257)), "too_many_fields"),
        ("m" + "".join(f",t{n}=1" for n in range(65)) + " f=1", "too_many_fields"),
        (f"{'m' * 257} f=1", "bad_name"),
        (f"m,{'t' * 257}=1 f=1", "bad_name"),
        (f"m,t={'v' * 1025} f=1", "bad_value"),
        (f"m,t=v\x7f{'v' * 9} f=1", "bad_value"),
        ("m " + ",".join(f'f{n}="{"x" * 120_000}"' for n in range(3)), "too_large"),
    ],
)
def test_limits_of_a_line(content: str, code: str) -> None:
    decoded = decode(f"m a=1\n{content}\nm a=2")

    assert len(decoded.records) == 2
    assert codes(decoded) == [(1, code)]


def test_limits_of_a_field() -> None:
    decoded = decode(f'm a=1,{"k" * 257}=2,s="{"x" * 131_073}",t="{"x" * 131_072}"'.replace(',t="', '\nm t="'))

    assert [list(record.fields) for record in decoded.records] == [["a"], ["t"]]
    assert codes(decoded) == [(0, "bad_name"), (0, "too_large")]


def test_too_many_lines_are_too_large_as_a_whole() -> None:
    decoded = decode("m a=1\n" * MAX_RECORDS + "m a=1")

    assert (decoded.is_unreadable, codes(decoded), decoded.records) == (True, [(0, "too_large")], [])


@pytest.mark.parametrize(
    "content",
    [
        '="' * 60_000, '="\\"' * 40_000, "m a=" + '"\\' * 60_000, "m " + "a=1," * 40_000, "\\" * 200_000, "m,a=b" * 30_000,
        "m " + "a" * 200_000, 'm a="' + "\n" * 19_000, ("m " + "a=1," * 20 + "\n") * 2_000, "m " + "a=1 " * 50_000,
        'm a="x"' * 20_000, "m,\\ " * 40_000 + "a=1", " " * 200_000 + "x",
    ],
)  # fmt: skip
def test_no_line_costs_more_than_its_length(content: str) -> None:
    began_s = time.process_time()
    decode(content)

    assert time.process_time() - began_s < 2  # a second walk of each character would take minutes


def test_records_that_begin_alike_do_not_share_their_fields() -> None:
    first, second = decode("m,t=1 a=1\nm,t=1 b=2").records

    assert (first.fields, second.fields) == ({"a": 1.0}, {"b": 2.0})
    assert first.tags == second.tags == {"t": "1"}


def test_numbers_are_floats_or_integers_as_they_are_written() -> None:
    fields = only("m a=1,b=1i,c=1u,d=1e3,e=-0").fields

    assert [type(value) for value in fields.values()] == [float, int, int, float, float]
    assert math.copysign(1, fields["e"]) == -1


@pytest.mark.parametrize(
    ("tags", "device", "left"),
    [
        ("", None, {}),
        (",room=lab", None, {"room": "lab"}),
        (",host=a", "line:a", {}),
        (",device=d\\ 2,host=a,room=lab", "line:d 2", {"host": "a", "room": "lab"}),
        (",device_id=x,id=y", "line:x", {"id": "y"}),
        (",id=y", "line:y", {}),
    ],
)
def test_tag_names_whom_a_gateway_speaks_for(tags: str, device: str | None, left: dict[str, str]) -> None:
    first, second = decode(f"m{tags} a=1\nm{tags} a=2", Context(NOW, is_gateway=True)).records
    own = only(f"m{tags} a=1")

    assert (first.device, first.tags) == (second.device, second.tags) == (device, left)
    assert (own.device, len(own.tags)) == (None, tags.count(","))
