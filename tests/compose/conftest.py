"""A supervisor with stand-ins, ended after the test whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.gateway import Gateway
from tests.compose.standins import Supervised


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    started: list[Supervised] = []

    def start(*specs: dict[str, Any], folder: Path | None = None) -> Supervised:
        started.append(Supervised(folder or tmp_path / "data", list(specs)))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.server.shutdown()
    made.server.server_close()
