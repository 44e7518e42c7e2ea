"""What a codec gave: read, or refused with its own words. The forms of its functions are run in tests/ingest."""

from __future__ import annotations

import pytest

from wire.codecs import CodecFault, read_told


def test_data_and_warnings_are_read() -> None:
    told = read_told('{"data":{"t":21.5},"warnings":["low battery",7],"errors":[]}')

    assert (told.data, told.warnings) == ({"t": 21.5}, ["low battery", "7"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"data":{"t":1},"errors":["unknown FPort"]}', "unknown FPort"),
        ('{"errors":"too short"}', "too short"),
        ("[1]", "no object"),
        ("7", "no object"),
        ('{"data":7}', "no `data`"),
        ("{}", "no `data`"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_what_has_no_data_is_refused(text: str, said: str) -> None:
    with pytest.raises(CodecFault, match=said):
        read_told(text)
