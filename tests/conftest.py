"""What every test may use: a running installation, shared by the end-to-end tests of one worker."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import hypothesis
import pytest

from tests.e2e.platform import Device, Installation

# No test is to fail because the machine is busy; too_slow would be the same by another name.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")

_numbers = count(1)
_ID_BYTES = 20  # a parameter that is its own name


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test with long bytes for the argument: compressed ones differ from worker to worker."""
    return argname if isinstance(val, bytes) and len(val) > _ID_BYTES else None


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
