from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import clock


@given(st.integers(-62_135_596_800 * clock.NS_PER_S, clock.MAX_NS))
def test_any_representable_time_round_trips(time_ns: int) -> None:
    if time_ns < clock.MIN_NS:
        return
    assert clock.parse_rfc3339(clock.format_ns(time_ns)) == (time_ns, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", (0, True)),
        ("2023-11-14T23:13:20.25+01:00", (1_700_000_000_250_000_000, True)),
        ("2026-03-04 05:06:07", (1_772_600_767_000_000_000, False)),
        ("1969-12-31T23:59:59.999999999Z", (-1, True)),
        ("2016-12-31T23:59:60Z", (1_483_228_800_000_000_000, True)),
    ],
)
def test_rfc3339_forms_are_read(text: str, expected: tuple[int, bool]) -> None:
    assert clock.parse_rfc3339(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-13-01T00:00:00Z",
        "2026-01-01T25:00:00Z",
        "9999-01-01T00:00:00Z",
        "2026-01-01T00:00:00+99:00",
    ],
)
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        clock.parse_rfc3339(text)


def test_query_times_are_rfc3339_or_ns() -> None:
    assert clock.parse_time("1700000000000000001") == 1_700_000_000_000_000_001
    assert clock.parse_time("2023-11-14T22:13:20.000000001Z") == 1_700_000_000_000_000_001
    with pytest.raises(ValueError):
        clock.parse_time("9" * 19)
