from __future__ import annotations

from pathlib import Path

from ingest.bridge.identity import SessionName


def test_name_is_kept_until_it_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "bridge.session"
    assert SessionName(path).name == ""

    first = SessionName(path).renew()
    assert SessionName(path).name == first != ""
    assert SessionName(path).renew() != first


def test_name_that_cannot_be_kept_is_still_a_new_one(tmp_path: Path) -> None:
    name = SessionName(tmp_path / "missing" / "bridge.session")

    assert name.renew() == name.name != ""


def test_without_a_file_the_name_is_of_this_process() -> None:
    name = SessionName(None)

    assert name.name == ""
    assert name.renew() != name.renew()
