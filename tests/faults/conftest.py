"""Installations that the faults share: starting one takes 4 s, so it is broken again and again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.platform import Installation
from tests.faults.rig import RiggedSite, Site


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """As it comes, but with two workers a service."""
    started = Installation(tmp_path_factory.mktemp("faults") / "data").start(HEADWATER_WORKERS="2")
    made = Site(started)
    yield made
    made.stop()


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    yield shared_site
    shared_site.end_runs()
    shared_site.wait_ready()


@pytest.fixture(scope="session")
def shared_rigged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RiggedSite]:
    made = RiggedSite(tmp_path_factory.mktemp("rigged"), HEADWATER_WORKERS="2").start()
    yield made
    made.stop()


@pytest.fixture
def rigged(shared_rigged: RiggedSite) -> Iterator[RiggedSite]:
    yield shared_rigged
    shared_rigged.heal()
    shared_rigged.end_runs()
    shared_rigged.wait_ready()
