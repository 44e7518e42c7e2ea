"""Contract of every engine: what is written comes back as it was, or is refused by name."""

from __future__ import annotations

import math
import string

import pytest

from series.port import Refusal, WriteOutcome
from wire.points import INT64_MAX, INT64_MIN, UINT64_MAX, Point

S = 1_000_000_000
T = 1_767_312_000 * S  # 2026-01-02 00:00 UTC

NASTY = [
    "comma, blank and = sign",
    "quote \" and ' quote",
    "back\\slash",
    "new\nline\r\n",
    "tab\t",
    "nul\0inside",
    "",
    "grüße 温度 🌡️",
    "\u202eright to left",
    "'; DROP TABLE series; --",
    "%s {0} $1 :x ?1",
    "x" * 65_536,
    "18446744073709551615",
    "1e5",
    "NaN",
    "true",
]
NAMES = [
    "time",
    "_field",
    "_measurement",
    "value",
    "sid",
    "ts",
    "bucket",
    "extra",
    "f0",
    "m1",
    "rowid",
    "select",
    "a.b.c",
    "a\\.b",
    "with blank",
    "comma,eq=",
    'quo"te',
    "温度",
    "🌡️",
    "x" * 256,
    "A",
    "a",
    "1",
    "-",
    "\0",
    "\n",
]


def _value_of(store, value):
    store.take(Point("d1", "m", T, {"v": value}))
    [point] = store.range()
    return point.fields["v"]


@pytest.mark.parametrize(
    "value",
    [0.0, -0.0, 1e308, -1e308, 5e-324, 0.1, 21.5, 1e22, 9007199254740993.0, 2.0**63, 1.7976931348623157e308],
)
def test_float_keeps_every_bit(store, value):
    kept = _value_of(store, value)

    assert type(kept) is float
    assert kept == value
    assert math.copysign(1, kept) == math.copysign(1, value)


@pytest.mark.parametrize("value", [0, 1, -1, 2**53 + 1, INT64_MAX, INT64_MIN])
def test_int64_keeps_its_exact_value(store, value):
    if not store.capabilities.exact_int64:
        pytest.skip("engine has no exact int64")

    kept = _value_of(store, value)

    assert (type(kept), kept) == (int, value)
    assert store.latest() == {"v": (T, value)}


@pytest.mark.parametrize("value", [INT64_MAX + 1, 2**64 - 2, UINT64_MAX])
def test_uint64_keeps_its_exact_value(store, value):
    if not store.capabilities.exact_uint64:
        pytest.skip("engine has no exact uint64")

    kept = _value_of(store, value)

    assert (type(kept), kept) == (int, value)
    assert store.latest() == {"v": (T, value)}


@pytest.mark.parametrize("value", [True, False])
def test_bool_is_no_int(store, value):
    if not store.capabilities.bools:
        pytest.skip("engine has no booleans")

    assert _value_of(store, value) is value
    assert store.latest()["v"][1] is value


@pytest.mark.parametrize("value", NASTY)
def test_string_keeps_every_character(store, value):
    if not store.capabilities.strings:
        pytest.skip("engine has no strings")

    assert _value_of(store, value) == value
    assert store.latest() == {"v": (T, value)}


@pytest.mark.parametrize("name", NAMES)
def test_any_field_name_is_a_name(store, name):
    store.take(Point("d1", "m", T, {name: 1.5, "other": 2.5}))

    assert [point.fields for point in store.range()] == [{name: 1.5, "other": 2.5}]
    assert [point.fields for point in store.range(fields=[name])] == [{name: 1.5}]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_device_measurement_and_tag_is_kept_apart(store, name):
    point = Point(name, name, T, {"v": 1.0}, {name: name}, tenant=name)
    other = Point("d1", "m", T, {"v": 2.0})
    store.take(point, other)

    assert store.range(tenant=name) == [point]
    assert store.range(tenant=name, devices=[name], measurement=name) == [point]
    assert store.range() == [other]


def test_field_names_that_differ_in_case_are_different(store):
    store.take(Point("d1", "m", T, dict.fromkeys(string.ascii_letters, 1.0)))

    assert store.range()[0].fields == dict.fromkeys(string.ascii_letters, 1.0)


def test_hundreds_of_fields_of_every_type_come_back(store):
    values = [1.5, -0.0, UINT64_MAX, -7, True, "text ☃"]
    fields = {f"field {at}": values[at % len(values)] for at in range(700)}
    store.take(Point("d1", "m", T, fields))
    store.take(Point("d1", "m", T, {"field 650": 9, "field 0": 2.5}))

    expected = fields | {"field 650": 9, "field 0": 2.5}
    assert repr(sorted(store.range()[0].fields.items())) == repr(sorted(expected.items()))
    assert [point.fields for point in store.range(fields=["field 650"])] == [{"field 650": 9}]


def test_a_thousand_measurements_are_kept_apart(store):
    points = [Point("d1", f"m{at:04}", T, {"v": float(at), f"own {at}": True}) for at in range(1_000)]
    store.take(*points)

    assert store.range(limit=2_000) == points
    assert store.range(measurement="m0777") == [points[777]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_is_refused_and_the_rest_kept(store, value):
    outcome = store.write(Point("d1", "m", T, {"bad": value, "good": 1.0}))

    assert outcome.accepted == 1
    [refusal] = outcome.refused
    assert (refusal.index, refusal.code, refusal.field) == (0, "nonfinite", "bad")
    assert store.range()[0].fields == {"good": 1.0}


def test_integers_beyond_64_bits_are_refused(store):
    outcome = store.write(Point("d1", "m", T, {"a": UINT64_MAX + 1}), Point("d1", "m", T, {"b": INT64_MIN - 1}))

    assert outcome.accepted == 0
    assert [refusal.code for refusal in outcome.refused] == ["out_of_range", "out_of_range"]
    assert store.range() == []


def test_half_a_surrogate_pair_is_refused_wherever_it_stands(store):
    half = "\ud800"
    outcome = store.write(
        Point(half, "m", T, {"v": 1.0}),
        Point("d1", half, T, {"v": 1.0}),
        Point("d1", "m", T, {half: 1.0}),
        Point("d1", "m", T, {"v": half}),
        Point("d1", "m", T, {"v": 1.0}, {"k": half}),
        Point("d1", "m", T, {"v": 1.0}),
    )

    assert outcome.accepted == 1
    codes = [refusal.code for refusal in outcome.refused]
    assert codes == ["bad_name", "bad_name", "bad_name", "bad_value", "bad_name"]


def test_one_bad_point_in_the_middle_costs_only_itself(store):
    points = [Point("d1", "m", T + at, {"v": 1.0}) for at in range(1_000)]
    points[500] = Point("d1", "m", T + 500, {"v": "text"})
    outcome = store.write(*points)

    assert outcome.accepted == 999
    assert outcome.refused == [Refusal(500, "type_conflict", outcome.refused[0].detail, "v")]
    assert len(store.range(limit=2_000)) == 999


@pytest.mark.parametrize(
    ("first", "then", "names"),
    [
        (1, 1.5, ("int", "float")),
        (1.5, "x", ("float", "string")),
        (1, True, ("int", "bool")),
        (True, 1, ("bool", "int")),
        (True, 1.0, ("bool", "float")),
        ("x", 1.0, ("string", "float")),
        (1.5, False, ("float", "bool")),
        ("x", True, ("string", "bool")),
    ],
)
@pytest.mark.parametrize("is_one_batch", [True, False])
def test_type_conflict_names_both_types_and_keeps_the_rest(store, first, then, names, is_one_batch):
    points = Point("d1", "m", T, {"v": first}), Point("d1", "m", T + 1, {"v": then, "w": 2.5})
    refused = (
        store.write(*points).refused
        if is_one_batch
        else [*store.write(points[0]).refused, *store.write(points[1]).refused]
    )

    [refusal] = refused
    assert (refusal.index, refusal.code, refusal.field) == (1 if is_one_batch else 0, "type_conflict", "v")
    assert all(name in refusal.detail for name in names)
    assert [point.fields for point in store.range()] == [{"v": first}, {"w": 2.5}]


def test_int_widens_into_a_float_field(store):
    store.take(Point("d1", "m", T, {"v": 1.5}))
    store.take(Point("d1", "m", T + 1, {"v": 2}), Point("d1", "m", T + 2, {"v": UINT64_MAX}))

    values = [point.fields["v"] for point in store.range()]
    assert [(type(value), value) for value in values] == [(float, 1.5), (float, 2.0), (float, 2.0**64)]
    assert type(store.latest()["v"][1]) is float


def test_types_of_a_field_are_each_series_own(store):
    points = [
        Point("d1", "m", T, {"v": 1.5}),
        Point("d2", "m", T, {"v": 7}),
        Point("d3", "m", T, {"v": "x"}),
        Point("d4", "m", T, {"v": True}),
        Point("d5", "m", T, {"v": UINT64_MAX}),
        Point("d6", "m", T, {"v": 2.0}),
    ]
    store.take(*points)

    assert repr(store.range()) == repr(points)


def test_point_without_fields_is_refused(store):
    assert [refusal.code for refusal in store.write(Point("d1", "m", T, {})).refused] == ["no_values"]


def test_value_that_is_no_field_value_is_refused(store):
    outcome = store.write(Point("d1", "m", T, {"v": None, "w": [1]}))  # type: ignore[dict-item]

    assert outcome.accepted == 0
    assert [refusal.code for refusal in outcome.refused] == ["bad_value", "bad_value"]


@pytest.mark.parametrize("time_ns", [-(2**63) - 1, 2**63, 10**30])
def test_time_outside_64_bits_is_refused(store, time_ns):
    outcome = store.write(Point("d1", "m", time_ns, {"v": 1.0}))

    assert (outcome.accepted, [refusal.code for refusal in outcome.refused]) == (0, ["bad_time"])


def test_an_empty_batch_is_fine(store):
    assert store.write() == WriteOutcome(0)


@pytest.mark.parametrize("time_ns", [-(2**63), -1, 0, 1, 86_400 * S - 1, 86_400 * S, -86_400 * S, 2**63 - 1, T])
def test_any_time_keeps_its_nanosecond(store, time_ns):
    store.take(Point("d1", "m", time_ns, {"v": 1.0}))

    assert [point.time_ns for point in store.range()] == [time_ns]
    assert [point.time_ns for point in store.range(start_ns=time_ns, end_ns=time_ns + 1)] == [time_ns]
    assert store.range(start_ns=time_ns + 1) == []
    assert store.range(end_ns=time_ns) == []
