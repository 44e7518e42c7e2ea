"""What is heard in each protocol: by tenant, of the last hour, over restarts; and which services run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.traffic import MINUTE_NS, Heard, Service, Traffic
from wire import clock

NOW = 1_772_700_000 // 60 * 60 * clock.NS_PER_S  # the beginning of a minute
RUN = """
import sys, time
from pathlib import Path
from ingest.traffic import Traffic
traffic = Traffic(Path(sys.argv[1]))
traffic.begin("line", 7)
print("begun", flush=True)
sys.stdin.read()
traffic.close()
"""


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    made = Traffic(tmp_path)
    yield made
    made.close()


def test_counts_are_the_tenants_own(traffic: Traffic) -> None:
    traffic.note("acme", "json", "accepted", 600)
    traffic.note("acme", "json", "quarantined", 2)
    traffic.note("other", "json", "refused", 5)
    traffic.note("other", "line", "accepted", 1)
    traffic.save(NOW + 10 * clock.NS_PER_S)

    assert traffic.heard("acme", NOW + 60 * clock.NS_PER_S) == {
        "json": Heard(NOW + 10 * clock.NS_PER_S, 600, 2, 0, 602 / 240)
    }
    assert traffic.heard("other", NOW)["json"][1:4] == (0, 0, 5)
    assert traffic.heard("nobody", NOW) == {}


def test_rate_is_of_the_last_minutes_and_counts_of_the_last_hour(traffic: Traffic) -> None:
    for minute in (0, 50, 59):
        traffic.note("acme", "json", "accepted", 300)
        traffic.save(NOW + minute * MINUTE_NS)

    found = traffic.heard("acme", NOW + 59 * MINUTE_NS + 30 * clock.NS_PER_S)["json"]
    assert (found.accepted, found.rate_s) == (900, 300 / 270)
    assert traffic.heard("acme", NOW + 60 * MINUTE_NS)["json"].accepted == 600
    late = traffic.heard("acme", NOW + 1_000 * MINUTE_NS)["json"]
    assert (late.last_ns, late.accepted, late.rate_s) == (NOW + 59 * MINUTE_NS, 0, 0.0)


def test_several_processes_add_up_and_nothing_is_counted_twice(traffic: Traffic, tmp_path: Path) -> None:
    other = Traffic(tmp_path)
    for each in (traffic, other):
        each.note("acme", "json", "accepted", 1)
        each.save(NOW)
        each.save(NOW)
    other.close()

    assert traffic.heard("acme", NOW)["json"].accepted == 2


def test_service_runs_until_it_ends_or_falls_down(traffic: Traffic, tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    def end(process: subprocess.Popen[str], *, falls: bool) -> Service:
        if falls:
            process.kill()
        process.communicate()
        return traffic.services()["line"]

    assert traffic.services() == {}
    process = start()
    assert traffic.services() == {"line": Service("running", 7)}
    assert end(process, falls=True) == Service("down", 7)
    assert end(start(), falls=False) == Service("idle", 7)


def test_damaged_file_costs_figures_only(tmp_path: Path) -> None:
    (tmp_path / "traffic.db").write_bytes(b"no database" * 1_000)

    made = Traffic(tmp_path)
    made.note("acme", "json", "accepted", 1)
    made.save(NOW)

    assert made.heard("acme", NOW)["json"].accepted == 1
    made.close()
