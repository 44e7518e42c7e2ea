"""Single values as texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.protocols import scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("21.5", 21.5), (" 21 ", 21.0), ("+.5e-1", 0.05), ("9007199254740993", 2**53 + 1), ("-0", 0.0),
        ("true", True), ("FALSE", False), ("ON", True), ("Off", False),
        ("open", "open"), ("12 W", "12 W"), ("1,5", "1,5"), ("0x10", "0x10"), ("١٢", "١٢"), ("nan", "nan"), ("1" * 41, "1" * 41),
        ("", None), (" ", None),
    ],
)  # fmt: skip
def test_value_without_a_type_goes_by_its_text(text: str, value: object) -> None:
    found = scalar.read(text)

    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("text", "21.5", "21.5"), ("text", "", ""), ("number", "nan", None), ("number", "unavailable", None),
        ("flag", "on", True), ("flag", "unknown", None),
    ],
)  # fmt: skip
def test_value_has_the_type_that_was_said(kind: scalar.Kind, text: str, value: object) -> None:
    assert scalar.read(text, kind) == value


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        ("number", "on", "bad_value"), ("flag", "1", "bad_value"), ("number", "1e999", "nonfinite"),
        ("any", "99999999999999999999", "out_of_range"), ("any", "x" * 70_000, "too_large"),
        ("text", "x" * 70_000, "too_large"), ("number", "1" * 41, "bad_value"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(kind: scalar.Kind, text: str, code: str) -> None:
    found = scalar.read(text, kind)

    assert isinstance(found, tuple)
    assert found[0] == code


@given(value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1))
def test_number_comes_back_as_it_was_written(value: float) -> None:
    assert scalar.read(repr(value), "number") == value
