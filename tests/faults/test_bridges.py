"""F1 with several bridges: each holds a share of every device's messages, and any of them is killed at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.platform import Installation
from tests.faults.checker.probe import Probe
from tests.faults.rig import Site
from tests.faults.storm import Storm, total

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
FAULTS = 100 if os.environ.get("HEADWATER_TEST_LONG") else 4
VICTIMS = ("bridge", "bridge-2", "ingest-json")


@pytest.fixture
def bridged(tmp_path: Path) -> Iterator[Site]:
    site = Site(Installation(tmp_path / "data", "--no-demo", "--bridges", "2").start())
    yield site
    site.end_runs()
    site.stop()


def test_kills_of_two_bridges_lose_and_repeat_nothing(bridged: Site) -> None:
    site = bridged
    run, probe = site.run("shared").start(mqtt=6, http=1), Probe(site.door, site.mqtt)

    storm = Storm(15, VICTIMS, together=2).blow(run, probe, until_s=time.monotonic() + 20 * FAULTS, most=FAULTS)

    probe.close()
    print(total([storm.figures(run.check())]))
