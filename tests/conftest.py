"""What every test may use: a running installation, shared by the end-to-end tests of one worker."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.e2e.platform import Device, Installation

_numbers = count(1)


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A platform without demo devices; tests share it and use devices of their own."""
    started = Installation(tmp_path_factory.mktemp("installation") / "data").start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def device(installation: Installation) -> Device:
    """A fresh device without a type."""
    return installation.add_device(f"dev-{next(_numbers)}")
