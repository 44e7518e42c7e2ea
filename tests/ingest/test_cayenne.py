"""Cayenne LPP: the examples of its document, each type there and back, and what is not whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.protocols.cayenne import KINDS, decode
from ingest.protocols.flatten import Refused


@pytest.mark.parametrize(
    ("payload", "data"),
    [  # the document of myDevices
        ("03 67 01 10 05 67 00 FF", {"temperature_3": 27.2, "temperature_5": 25.5}),
        ("01 67 FF D7", {"temperature_1": -4.1}),
        ("06 71 04 D2 FB 2E 00 00", {"accelerometer_6": {"x": 1.234, "y": -1.234, "z": 0}}),
        ("01 88 06 76 5f f2 96 0a 00 03 e8", {"gps_1": {"latitude": 42.3519, "longitude": -87.9094, "altitude": 10}}),
        ("01 68 91 02 73 27 10 03 02 ff 38", {"relative_humidity_1": 72.5, "barometric_pressure_2": 1000, "analog_in_3": -2}),
    ],
)  # fmt: skip
def test_examples_of_the_document(payload: str, data: dict[str, Any]) -> None:
    told = decode(bytes.fromhex(payload))

    assert (told.data, told.warnings, told.is_partial) == (data, [], False)


@st.composite
def values(draw: st.DrawFn) -> tuple[int, int, list[int]]:
    """Channel, type, and the whole numbers of a value."""
    number = draw(st.sampled_from(sorted(KINDS)))
    kind = KINDS[number]
    bits = 8 * kind.size - kind.is_signed
    low = -(2**bits) if kind.is_signed else 0
    parts = max(1, len(kind.parts))
    numbers = draw(st.lists(st.integers(low, 2**bits - 1), min_size=parts, max_size=parts))
    return draw(st.integers(0, 255)), number, numbers


@given(st.lists(values(), min_size=1, max_size=12, unique_by=lambda value: value[:2]))
def test_what_was_encoded_is_decoded(sent: list[tuple[int, int, list[int]]]) -> None:
    payload, expected = b"", dict[str, list[float]]()
    for channel, number, whole in sent:
        kind = KINDS[number]
        payload += bytes([channel, number]) + b"".join(
            each.to_bytes(kind.size, signed=kind.is_signed) for each in whole
        )
        divisors = kind.divisors or (kind.divisor,) * len(whole)
        expected[f"{kind.name}_{channel}"] = [each / by for each, by in zip(whole, divisors, strict=True)]

    found = decode(payload).data

    assert {
        name: list(value.values()) if isinstance(value, dict) else [value] for name, value in found.items()
    } == expected


@given(st.binary(max_size=64))
def test_any_bytes_are_decoded_or_refused(content: bytes) -> None:
    try:
        told = decode(content)
    except Refused:
        return
    assert told.is_partial == bool(told.warnings)


@pytest.mark.parametrize(
    ("rest", "said"), [("07 fa 01", "type 250"), ("07 67 01", "cut off"), ("07", "left over")], ids=str
)
def test_what_cannot_be_read_ends_a_payload_and_keeps_what_came_before(rest: str, said: str) -> None:
    told = decode(bytes.fromhex("01 67 00 ff" + rest))

    assert (told.data, told.is_partial) == ({"temperature_1": 25.5}, True)
    assert said in told.warnings[0]
    with pytest.raises(Refused, match=said):
        decode(bytes.fromhex(rest))
