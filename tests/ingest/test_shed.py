from __future__ import annotations

from pathlib import Path

import pytest

from ingest import shed
from ingest.shed import SHED, ShedCount


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shed.log"


def counted(count: ShedCount) -> float:
    before = SHED._value.get()
    count.read()
    return SHED._value.get() - before


def add(path: Path, lines: int) -> None:
    with path.open("a") as file:
        file.write("1\n" * lines)


def test_every_line_is_counted_once(path) -> None:
    count = ShedCount(path)

    assert counted(count) == 0  # no gateway yet
    add(path, 3)
    assert counted(count) == 3
    add(path, 2)
    assert counted(count) == 2
    assert counted(count) == 0
    count.close()


def test_a_new_file_is_followed(path) -> None:
    count = ShedCount(path)
    add(path, 3)
    counted(count)
    path.unlink()
    add(path, 1)

    assert counted(count) == 1
    count.close()


def test_one_process_counts(path) -> None:
    first, second = ShedCount(path), ShedCount(path)
    add(path, 3)

    assert (counted(first), counted(second)) == (3, 0)
    first.close()
    second.close()


def test_file_does_not_grow_without_bound(path, monkeypatch) -> None:
    monkeypatch.setattr(shed, "TRIM_BYTES", 10)
    count = ShedCount(path)
    add(path, 6)

    assert counted(count) == 6
    assert path.stat().st_size == 0
    add(path, 1)
    assert counted(count) == 1
    count.close()
