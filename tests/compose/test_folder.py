"""The data folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compose.folder import Folder, StartError, write_private


def test_folders_are_private(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")

    folder.prepare()

    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder.secrets, folder.run, folder.broker)} == {0o700}


def test_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(
        StartError, match=r"file/data cannot be written \(Not a directory\); choose another with --data"
    ):
        Folder(tmp_path / "file" / "data").prepare()


@contextmanager
def without_root() -> Iterator[None]:
    """Give up root's rights, if we have them: root may write everywhere."""
    own = os.geteuid()
    os.seteuid(own or 65_534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with without_root(), pytest.raises(StartError, match="Permission denied"):
        Folder(tmp_path / "data").prepare()


def test_path_with_a_newline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="control character"):
        Folder(tmp_path / "a\nuser evil").prepare()


def test_second_holder_is_told_who_holds(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.prepare()
    held = folder.hold()

    assert folder.is_held()
    with pytest.raises(StartError, match=rf"already runs on the data folder {tmp_path} \(pid {os.getpid()}\)"):
        Folder(tmp_path).hold()
    os.close(held)
    assert not folder.is_held()


def test_folder_nobody_used_is_not_held(tmp_path: Path) -> None:
    assert not Folder(tmp_path / "nothing").is_held()


def test_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_private(path, "long first content")
    write_private(path, "second")

    assert path.read_text() == "second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
