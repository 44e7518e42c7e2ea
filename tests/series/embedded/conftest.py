"""A store of the embedded engine on a fresh folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from series.embedded.reader import EmbeddedReader
from series.embedded.writer import EmbeddedWriter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "series"


@pytest.fixture
def writer(folder: Path) -> Iterator[EmbeddedWriter]:
    opened = EmbeddedWriter(folder, retention_days=1)
    yield opened
    opened.close()


@pytest.fixture
def reader(folder: Path) -> Iterator[EmbeddedReader]:
    opened = EmbeddedReader(folder)
    yield opened
    opened.close()
