"""F9: partitions, resets, half-open connections, delay and narrow lines on the three wires of a message."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults.proxy import Proxy
from tests.faults.rig import RiggedSite, Run

pytestmark = [pytest.mark.e2e, pytest.mark.faults]


def resets(proxy: Proxy, run: Run) -> None:
    for _ in range(4):
        proxy.reset()
        run.wait_acked(20)


def cuts(proxy: Proxy, run: Run) -> None:
    for _ in range(2):
        proxy.cut()
        time.sleep(0.7)  # long enough for tries that fail
        proxy.heal()
        run.wait_acked(20)


def partition(proxy: Proxy, run: Run) -> None:
    proxy.silence()
    time.sleep(2.5)
    proxy.heal()


def half_open(proxy: Proxy, run: Run) -> None:
    """What was sent arrives, the answers do not; then the connection is gone."""
    proxy.silence(up=False, down=True)
    time.sleep(2)
    proxy.reset()
    proxy.heal()


def slow_line(proxy: Proxy, run: Run) -> None:
    proxy.latency_s = 0.2
    run.wait_acked(80)
    proxy.latency_s, proxy.bytes_per_s = 0.0, 20_000.0
    run.wait_acked(80)


@pytest.mark.parametrize("fault", [resets, cuts, partition, half_open, slow_line], ids=lambda each: each.__name__)
def test_bad_network_loses_and_repeats_nothing(rigged: RiggedSite, fault: Callable[[Proxy, Run], None]) -> None:
    run = rigged.run(fault.__name__.replace("_", "-")).start(http=0)

    for proxy in (rigged.to_broker, rigged.to_ingest, rigged.from_devices):
        fault(proxy, run)
        proxy.heal()
        proxy.reset()  # what the line slowed down ends with it
        run.wait_acked(40)

    run.check()
