"""External names and the ids made of them."""

from __future__ import annotations

import pytest

from wire.external import is_external_name, to_device_id
from wire.topics import is_device_id

LEGAL = [
    "spb:Plant A/Line 1/Pump 7",
    "senml:urn:dev:ow:10e2073a01080063",
    "tb:+/#",
    "tb:<script>alert(1)</script>",
    "spb:Anlage Süd/Pümpe",
    "line:\U0001f600",
    "tb:" + "x" * 253,
    "tb:" + "ü" * 126,
    "tb:/",
    "tb:ü",
    "tb:..",
    "tb: ",
]


@pytest.mark.parametrize("name", LEGAL)
def test_names_are_taken_and_every_id_made_of_them_is_legal(name: str) -> None:
    assert is_external_name(name)
    made = {to_device_id(name, digits) for digits in (0, 6, 32)}
    assert len(made) == 3
    assert all(is_device_id(each) for each in made), made


@pytest.mark.parametrize(
    "name",
    ["", "tb", "tb:", ":x", "TB:x", "tb x:y", "tb:a\nb", "tb:\0", "tb:\x7f", "tb:\x9b", "tb:\ud800", "tb:" + "x" * 254,
     "tb:" + "ü" * 127],
)  # fmt: skip
def test_other_texts_are_no_names(name: str) -> None:
    assert not is_external_name(name)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("spb:Plant A/Line 1/Pump 7", "Plant-A.Line-1.Pump-7"),
        ("lora:70b3d5499a3c0001", "70b3d5499a3c0001"),
        ("senml:urn:dev:ow:10e2073a01080063", "urn-dev-ow-10e2073a01080063"),
        ("tb:_private", "private"),
        ("tb:ü", "tb"),
        ("tb:" + "a" * 100, "a" * 57),
    ],
)
def test_ids_are_made_of_the_names(name: str, made: str) -> None:
    assert to_device_id(name) == made


def test_digits_tell_names_apart_whose_ids_are_the_same() -> None:
    assert to_device_id("tb:a b") == to_device_id("tb:a-b")
    assert to_device_id("tb:a b", 6) != to_device_id("tb:a-b", 6)
