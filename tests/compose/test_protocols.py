"""`headwater protocol check`, as an author of a decoder uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from compose.__main__ import main
from tests.ingest.intake_support import CASES


def test_cases_that_differ_are_named_and_the_others_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(CASES / "tasmota", tmp_path / "tasmota")
    case = tmp_path / "tasmota/time_of_old_firmware/expected.json"
    case.write_text(case.read_text().replace("19.5", "19.6"))
    (tmp_path / "tasmota/epoch_that_is_no_time/expected.json").write_text("{")
    count = len(list((tmp_path / "tasmota").iterdir()))

    code = main(["protocol", "check", str(tmp_path / "tasmota")])

    said = capsys.readouterr().out
    assert code == 1
    assert "FAILED time_of_old_firmware\n       lacking: tasmota:attic" in said
    assert "FAILED epoch_that_is_no_time\n       it is no case: JSONDecodeError" in said
    assert f"{count - 2} of {count} cases are as expected" in said


def test_folder_without_cases_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocol", "check", str(tmp_path)]) != 0

    assert "holds no case" in capsys.readouterr().err


def test_context_that_no_device_type_has_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "json/case").mkdir(parents=True)
    (tmp_path / "json/case/input.json").write_bytes(b"{}")
    (tmp_path / "json/case/request.json").write_text('{"mqtt": {"topic": "devices/d1/telemetry"}}')
    context = {"time_unit": "fortnight"}
    (tmp_path / "json/case/expected.json").write_text(json.dumps({"points": [], "context": context}))

    assert main(["protocol", "check", str(tmp_path / "json")]) == 1

    assert "it is no case: ValidationError" in capsys.readouterr().out
