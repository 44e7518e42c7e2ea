"""Amounts on the command line."""

from __future__ import annotations

import pytest

from simulators.units import parse_address, parse_duration, parse_rate, parse_share


@pytest.mark.parametrize(("text", "wanted"), [("60s", 60), ("5m", 300), ("1h", 3600), ("250ms", 0.25), ("90", 90)])
def test_duration_is_read_in_seconds(text: str, wanted: float) -> None:
    assert parse_duration(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [("1/s", 1), ("10/m", 10 / 60), ("0.5/s", 0.5), ("50", 50), ("1/ms", 1000)]
)
def test_rate_is_read_per_second(text: str, wanted: float) -> None:
    assert parse_rate(text) == pytest.approx(wanted)


@pytest.mark.parametrize(("text", "wanted"), [("1%", 0.01), ("0.1%", 0.001), ("0.5", 0.5), ("100%", 1.0)])
def test_share_is_read_as_fraction(text: str, wanted: float) -> None:
    assert parse_share(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 day", "1e3", "nan"])
def test_odd_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0/s", "1/d", "x", "-1/s"])
def test_odd_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["101%", "2", "", "-1%"])
def test_odd_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a share"):
        parse_share(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("127.0.0.1:1884", ("127.0.0.1", 1884)), ("broker", ("broker", 1883)), ("[::1]:1885", ("::1", 1885))],
)
def test_address_is_read(text: str, wanted: tuple[str, int]) -> None:
    assert parse_address(text, 1883) == wanted


@pytest.mark.parametrize("text", ["", ":1883", "a:0", "a:65536", "a:b", "a b:1"])
def test_odd_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        parse_address(text, 1883)
