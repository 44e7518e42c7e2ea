"""Device types: the compiled checker agrees with the pydantic model, whatever it is given."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.validation import TypeChecker
from wire.devices import DeviceType

FIELDS = {
    "t": {"type": "float", "min": -40, "max": 85, "required": True},
    "n": {"type": "int", "min": 0},
    "big": {"type": "int"},
    "on": {"type": "bool"},
    "s": {"type": "string"},
    "_a.b f0": {"type": "float"},
    "mode": {"type": "string", "choices": ["a", "bc"]},
    "name": {"type": "string", "max_length": 2},
    "step": {"type": "float", "choices": [1, 2.5], "nullable": True},
    "code": {"type": "int", "choices": [7, 8], "max": 9},
}
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-50, 90).map(float),
    st.booleans(),
    st.text(max_size=3),
)


def checker(**members) -> TypeChecker:
    return TypeChecker(DeviceType.model_validate({"name": "g", "fields": FIELDS} | members))


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*FIELDS, "other", "f1"]), VALUES),
    st.sampled_from(["accept", "drop", "quarantine"]),
)
def test_quick_pass_and_model_agree(fields, unknown) -> None:
    made = checker(unknown_fields=unknown)
    verdict = made.check(fields)

    try:
        model = made.model.model_validate(fields)
    except ValidationError:
        assert verdict.faults or verdict.missing
    else:
        dumped = {name: value for name, value in model.model_dump(by_alias=True).items() if name in fields}
        extra = {name: value for name, value in fields.items() if name not in FIELDS and unknown == "accept"}
        assert (verdict.fields, verdict.faults, verdict.missing) == (dumped | extra, [], None)
        assert {name: type(value) for name, value in verdict.fields.items()} == {
            name: type(value) for name, value in (dumped | extra).items()
        }


@pytest.mark.parametrize(
    ("fields", "fitting", "codes"),
    [
        ({"t": 1.0, "n": 5.0}, {"t": 1.0, "n": 5}, []),
        ({"t": 1.0, "n": 5.5}, {"t": 1.0}, [("n", "type_conflict")]),
        ({"t": 85.1, "s": "x"}, {"s": "x"}, [("t", "out_of_range")]),
        ({"t": "hot", "s": "x"}, {"s": "x"}, [("t", "type_conflict")]),
        ({"t": 1.0, "n": -1.0}, {"t": 1.0}, [("n", "out_of_range")]),
        ({"t": 1.0, "on": 1.0}, {"t": 1.0}, [("on", "type_conflict")]),
        ({"t": True}, {}, [("t", "type_conflict")]),
        ({"t": 1.0, "big": 2**64 - 1}, {"t": 1.0, "big": 2**64 - 1}, []),
        ({"t": 1.0, "mode": "x", "name": "ab"}, {"t": 1.0, "name": "ab"}, [("mode", "out_of_range")]),
        ({"t": 1.0, "step": 2.5, "code": 8.0}, {"t": 1.0, "step": 2.5, "code": 8}, []),
        ({"t": 1.0, "step": 1.0, "code": 9.0}, {"t": 1.0, "step": 1.0}, [("code", "out_of_range")]),
        ({"t": 1.0, "step": 2.0, "code": 7}, {"t": 1.0, "code": 7}, [("step", "out_of_range")]),
        ({"t": 1.0, "mode": "bc", "name": "abc"}, {"t": 1.0, "mode": "bc"}, [("name", "out_of_range")]),
    ],
)
def test_field_at_fault_is_named_and_the_rest_kept(fields, fitting, codes) -> None:
    verdict = checker().check(fields)

    assert verdict.fields == fitting
    assert [fault[:2] for fault in verdict.faults] == codes


def test_missing_field_refuses_the_reading() -> None:
    verdict = checker().check({"n": 1.0})

    assert verdict.missing is not None
    assert verdict.missing[:2] == ("t", "missing_field")


@pytest.mark.parametrize(
    ("unknown", "kept", "codes", "dropped"),
    [("accept", True, [], 0), ("drop", False, [], 1), ("quarantine", False, [("z", "unknown_field")], 0)],
)
def test_unknown_field_goes_as_the_type_says(unknown, kept, codes, dropped) -> None:
    verdict = checker(unknown_fields=unknown).check({"t": 1.0, "z": 2.0})

    assert ("z" in verdict.fields) is kept
    assert [fault[:2] for fault in verdict.faults] == codes
    assert verdict.dropped == dropped


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"t": 412.7}, "t: 412.7 is above 85"),
        ({"t": True}, "t: the device type says float, this one is bool"),
        ({"t": -41.0}, "t: -41.0 is below -40"),
        ({"t": "n/a"}, "t: the device type says float, this one is string"),
        ({"t": 1.0, "n": 5.5}, "n: the device type says int, this one is float"),
        ({"t": 1.0, "z": 1.0}, "z: the device type does not name it"),
        ({"t": 1.0, "mode": "x"}, "mode: 'x' is not one of a, bc"),
        ({"t": 1.0, "step": 2.0}, "step: 2.0 is not one of 1, 2.5"),
        ({"t": 1.0, "name": "abc"}, "name: 3 characters, above 2"),
        ({"n": 1.0}, "t: absent, and the device type requires it"),
    ],
)
def test_fault_is_told_in_words_for_people(fields, detail) -> None:
    verdict = checker(unknown_fields="quarantine").check(fields)

    faults = [verdict.missing] if verdict.missing else verdict.faults
    assert [fault[2] for fault in faults] == [detail]
