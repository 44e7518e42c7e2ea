"""Every case against the decoder alone, as the authors of decoders outside do: a new case needs no code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ingest.protocols.cases import check
from tests.ingest.intake_support import CASES

ELSEWHERE = (  # decided by what comes after the decoder: device types, and what joins readings
    "int_field_of_the_type", "range_of_the_type", "required_field_is_missing", "unknown_field_of_a_strict_type",
    "same_name_and_time_twice_the_last_holds",
)  # fmt: skip
FOLDERS = sorted(path.parent for path in CASES.glob("*/*/request.json") if path.parent.name not in ELSEWHERE)
TASMOTA = CASES / "tasmota/time_of_old_firmware"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_decoder_gives_what_is_expected(folder: Path) -> None:
    assert check(folder) == []


@pytest.mark.parametrize(
    ("member", "value", "said"),
    [
        ("fields", {"DS18B20.Temperature": 19.0, "DS18B20.Id": "00000566CC39"}, "DS18B20.Temperature float 19.0"),
        ("fields", {"DS18B20.Temperature": 19, "DS18B20.Id": "00000566CC39"}, "DS18B20.Temperature int 19"),
        ("time", "received", "1772700000000000000"),
        ("device", "tasmota:cellar", "tasmota:cellar"),
        ("tags", {"site": "a"}, "site=a"),
        ("measurement", "other", "other"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, member: str, value: object, said: str) -> None:
    folder = Path(shutil.copytree(TASMOTA, tmp_path / "tasmota" / "case"))
    expected = json.loads((folder / "expected.json").read_text())
    expected["points"][0][member] = value
    (folder / "expected.json").write_text(json.dumps(expected))

    differences = check(folder)

    assert any(said in line and line.startswith("lacking") for line in differences), differences
    assert any(line.startswith("too much") for line in differences)


def test_door_at_which_nobody_listens_is_said(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TASMOTA, tmp_path / "unknown" / "case"))
    (folder / "request.json").write_text('{"mqtt": {"topic": "nobody/x"}}')

    assert "no protocol is spoken" in check(folder)[0]
