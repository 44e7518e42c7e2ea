"""What commands write, and what is refused, by data type."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.protocols.flatten import Refused
from ingest.protocols.sparkplug import values
from ingest.protocols.sparkplug.messages import Payload
from ingest.protocols.sparkplug.session import Birth
from ingest.protocols.sparkplug.written import write_all
from tests.ingest.sparkplug.made import DAY_MS

NUMBERS = {1: (-(2**7), 2**7 - 1), 2: (-(2**15), 2**15 - 1), 3: (-(2**31), 2**31 - 1), 4: (-(2**63), 2**63 - 1),
           5: (0, 2**8 - 1), 6: (0, 2**16 - 1), 7: (0, 2**32 - 1), 8: (0, 2**64 - 1)}  # fmt: skip


def write(datatype: int, value: Any) -> Any:
    content, told = write_all(Birth({"m": datatype}, {}), {"m": value}, DAY_MS)
    metric = Payload.FromString(content).metrics[0]
    assert values.read(metric, datatype) == told["m"]
    return told["m"]


@given(st.sampled_from(sorted(NUMBERS)).flatmap(lambda kind: st.tuples(st.just(kind), st.integers(*NUMBERS[kind]))))
def test_integers_come_back_as_they_were_written(given_one: tuple[int, int]) -> None:
    assert write(*given_one) == given_one[1]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_as_they_were_written(single: float, double: float) -> None:
    assert (write(9, single), write(10, double)) == (single, double)


@given(
    st.lists(st.booleans()),
    st.lists(st.integers(-(2**15), 2**15 - 1)),
    st.lists(st.text(st.characters(min_codepoint=1))),
)
def test_arrays_come_back_as_they_were_written(flags: list[bool], numbers: list[int], texts: list[str]) -> None:
    assert orjson.loads(write(32, flags)) == flags
    assert orjson.loads(write(23, numbers)) == numbers


@pytest.mark.parametrize(
    ("datatype", "value", "told"),
    [
        (11, True, True),
        (12, "text ü", "text ü"),
        (15, "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
        (13, "2026-03-04T05:06:07.089Z", "2026-03-04T05:06:07.089000000Z"),
        (13, 1_772_600_767_089, "2026-03-04T05:06:07.089000000Z"),
        (17, "AAEC", "AAEC"),
        (3, 4.0, 4),
        (33, ["a", "b"], '["a","b"]'),
        (31, [1.5, -2], "[1.5,-2.0]"),
        (34, [0], '["1970-01-01T00:00:00.000000000Z"]'),
    ],
)
def test_values_of_each_type(datatype: int, value: Any, told: Any) -> None:
    assert write(datatype, value) == told


@pytest.mark.parametrize(
    ("datatype", "value", "code"),
    [
        *((kind, bounds[0] - 1, "out_of_range") for kind, bounds in NUMBERS.items()),
        *((kind, bounds[1] + 1, "out_of_range") for kind, bounds in NUMBERS.items()),
        (3, 1.5, "bad_value"),
        (3, True, "bad_value"),
        (3, "1", "bad_value"),
        (9, 3.5e38, "out_of_range"),
        (10, None, "bad_value"),
        (11, 1, "bad_value"),
        (12, 1, "bad_value"),
        (12, "x" * 65_537, "too_large"),
        (13, "yesterday", "bad_value"),
        (13, -1, "out_of_range"),
        (15, "no uuid", "bad_value"),
        (17, "no base64!", "bad_value"),
        (16, {}, "unsupported"),
        (19, {}, "unsupported"),
        (99, 1, "unsupported"),
        (0, 1, "unsupported"),
        (22, [128], "out_of_range"),
        (32, [1], "bad_value"),
        (33, "a", "bad_value"),
    ],
)
def test_refusals_name_the_metric(datatype: int, value: Any, code: str) -> None:
    with pytest.raises(Refused) as refused:
        write(datatype, value)

    assert (refused.value.code, refused.value.detail[:3]) == (code, "m: ")


def test_limit_is_named_too() -> None:
    with pytest.raises(Refused, match=r"^m: 300 in UInt8, which goes from 0 to 255$"):
        write(5, 300)


def test_aliases_stand_for_names_where_the_birth_gave_them() -> None:
    content, _ = write_all(Birth({"Set/a": 10, "Set/b": 11}, {7: "Set/a"}), {"Set/a": 1, "Set/b": True}, DAY_MS)

    payload = Payload.FromString(content)
    assert [(each.name, each.alias, each.datatype) for each in payload.metrics] == [("", 7, 10), ("Set/b", 0, 11)]
    assert not payload.HasField("seq")  # tck-id-payloads-ncmd-seq
    assert {each.timestamp for each in payload.metrics} == {payload.timestamp}


@pytest.mark.parametrize("wanted", [{}, {str(number): 1 for number in range(257)}])
def test_commands_write_1_to_256_metrics(wanted: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="1 to 256"):
        write_all(Birth(dict.fromkeys(wanted, 4), {}), wanted, DAY_MS)


def test_metric_that_no_birth_declared_is_refused() -> None:
    with pytest.raises(Refused, match="other: the birth has no metric of this name"):
        write_all(Birth({"m": 4}, {}), {"other": 1}, DAY_MS)


def test_not_even_a_number_of_python_alone_passes() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(Refused):
            write(3, value)
