from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devices.types.learn import propose
from devices.types.rules import demand_sound
from wire.descriptions import FieldDescription
from wire.schemas import Observation, ObservedField

NUMBERS = st.floats(-1e12, 1e12)


def seen(readings: int = 20, gap_s: float | None = 10.2, **fields: ObservedField) -> Observation:
    return Observation(readings=readings, devices=2, gap_s=gap_s, fields=fields, complete=True)


def field(count: int = 20, low: float | None = None, high: float | None = None, **types: int) -> ObservedField:
    return ObservedField(types=types, count=count, low=low, high=high)


def test_proposal_has_types_ranges_with_room_and_rhythm() -> None:
    spec = propose(seen(t=field(low=18.5, high=26.25, float=20), n=field(5, 0, 7, int=5), on=field(bool=20)))

    t, n, on = spec.fields["t"], spec.fields["n"], spec.fields["on"]
    assert (t.type, t.min, t.max, t.required) == ("float", 16, 29, True)
    assert (n.type, n.min, n.max, n.required) == ("int", 0, 9, False)
    assert (on.type, on.min, on.required) == ("bool", None, True)
    assert (spec.expected_interval_s, spec.unknown_fields) == (10.0, "accept")


def test_few_readings_make_nothing_required() -> None:
    assert not propose(seen(3, None, t=field(3, 1, 2, float=3))).fields["t"].required
    assert propose(seen(3, None)).expected_interval_s is None


def test_whole_and_broken_numbers_are_one_type_and_mixtures_are_told() -> None:
    spec = propose(seen(a=field(low=1, high=2, int=5, float=15), b=field(low=1, high=1, float=3, string=17)))

    assert (spec.fields["a"].type, spec.fields["a"].description) == ("float", "")
    assert (spec.fields["b"].type, spec.fields["b"].description) == ("string", "also seen as float")
    assert spec.fields["b"].min is None


@given(NUMBERS, NUMBERS)
def test_what_was_seen_passes_its_own_proposal(one, other) -> None:
    low, high = min(one, other), max(one, other)

    spec = propose(seen(t=field(low=low, high=high, float=20)))

    demand_sound(spec)
    assert spec.fields["t"].min <= low <= high <= spec.fields["t"].max


def test_units_and_names_come_along_where_all_who_told_any_agree() -> None:
    told = [
        FieldDescription(measurement="a", field="t", unit="°C", label="Air"),
        FieldDescription(measurement="b", field="t", unit="°C"),
        FieldDescription(measurement="a", field="p", unit="bar", label="Pressure"),
        FieldDescription(measurement="b", field="p", unit="hPa", label="Pressure"),
        FieldDescription(measurement="a", field="never seen", unit="V"),
    ]

    spec = propose(seen(t=field(float=20, low=1, high=2), p=field(float=20, low=1, high=2)), told)

    assert {name: (each.unit, each.description) for name, each in spec.fields.items()} == {
        "t": ("°C", "Air"),
        "p": ("", "Pressure"),
    }
