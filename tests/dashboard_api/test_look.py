from __future__ import annotations

import base64

import pytest

from dashboard_api import look
from wire.clock import NS_PER_S, now_ns

DASH = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(21.5, "21.5"), (21.0, "21"), (1013.2512, "1013.25"), (0.1 + 0.2, "0.3"), (-0.5, "-0.5"), (True, "true"), (False, "false"),
     (2**64 - 1, "18446744073709551615"), ("text", "text"), (None, DASH), (1e-9, "1e-09"), (123456.7, "123457"),
     (123456789.123, "123456789"), (-1234567.0, "-1234567"), (1.5e300, "1.5e+300"), (999999.9, "1000000")],
)  # fmt: skip
def test_values_are_short_and_integers_exact(value, shown):
    assert look.value(value) == shown


@pytest.mark.parametrize(
    ("elapsed_s", "shown"),
    [(0.4, "now"), (59, "59\u202fs ago"), (61, "1\u202fmin ago"), (7300, "2\u202fh ago"), (9e5, "10\u202fd ago")],
)
def test_ages_use_the_largest_unit(elapsed_s, shown):
    assert look.ago(elapsed_s) == shown
    assert look.since(now_ns() - int((elapsed_s + 0.01) * NS_PER_S)) == shown


@pytest.mark.parametrize(
    ("length_s", "shown"),
    [(None, DASH), (0, "0\u202fs"), (0.04, "40\u202fms"), (2.34, "2.3\u202fs"), (300, "5\u202fmin ago")],
)
def test_durations_use_the_unit_that_fits(length_s, shown):
    assert look.seconds(length_s) == shown


def test_absent_and_broken_times_are_never():
    assert look.since(None) == "never"
    assert look.since("yesterday") == "never"
    assert look.moment("yesterday") == look.iso(None) == ""


def test_times_are_written_for_people_and_for_scripts():
    assert look.moment("2026-01-02T03:04:05.678901234Z") == "2026-01-02 03:04:05 UTC"
    assert look.iso("2026-01-02T03:04:05.678901234Z") == "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"a": 1}', '{"a": 1}'),
        (b"\xff\x00", "ff 00"),
        (b"", ""),
        (b"a\x1b[31m\x00b", "a\ufffd[31m\ufffdb"),
        ("é".encode(), "é"),
    ],
)
def test_preview_shows_text_or_hex(raw, shown):
    assert look.preview({"raw_base64": base64.b64encode(raw).decode()}) == shown


def test_preview_is_cut_and_survives_nonsense():
    long = base64.b64encode(b"x" * 10_000).decode()

    assert len(look.preview({"raw_base64": long})) < 700
    assert look.preview({}) == look.preview({"raw_base64": "%%%"}) == look.preview({"raw_base64": None}) == ""


def test_rates_and_counts_have_separators():
    assert (look.rate(12345.6), look.rate(3.25), look.rate(None)) == ("12,346", "3.2", DASH)
    assert (look.count(1234567), look.count(None)) == ("1,234,567", DASH)


@pytest.mark.parametrize(
    ("shown", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (123_456, "123 kB"), (999_999, "1.0 MB"),
     (5_600_000_000, "5.6 GB"), (2 * 10**15, "2,000 TB")],
)  # fmt: skip
def test_bytes_are_written_in_their_unit(shown: int, text: str) -> None:
    assert look.size(shown) == text


@pytest.mark.parametrize(
    ("unit", "shown"), [("Cel", "\N{DEGREE SIGN}C"), ("W/m2", "W/m\u00b2"), ("bar", "bar"), ("", "")]
)
def test_units_are_written_for_people(unit, shown):
    assert look.unit(unit) == shown
