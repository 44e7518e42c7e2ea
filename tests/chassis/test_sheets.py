from __future__ import annotations

import pytest

from chassis.sheets import to_csv


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_text_that_begins_like_a_formula_is_marked_as_text(text: str) -> None:
    assert to_csv([[text]]).strip(b'"\r\n').startswith(b"'")


def test_numbers_stay_numbers() -> None:
    assert to_csv([[-1.5, -3, 2**64 - 1, None]]) == b"-1.5,-3,18446744073709551615,\r\n"


def test_commas_quotes_and_lines_survive() -> None:
    assert to_csv([['a "b",\nc', "plain"]]) == b'"a ""b"",\nc",plain\r\n'
