"""F5: the store is down, slow, answers with faults, refuses some points, or its files are locked by another program.

The embedded store is no process that could be stopped; a stand-in before it, at its port, does what remote ones do
(inject/sitecustomize.py). HEADWATER_TEST_LONG=1 keeps it down for 30 minutes.
"""

from __future__ import annotations

import os
import time

import apsw
import pytest

from tests.faults.checker import verdict
from tests.faults.rig import RiggedSite
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
DOWN_S = 1800.0 if os.environ.get("HEADWATER_TEST_LONG") else 4.0


def test_store_that_is_down_fails_or_hangs_costs_nothing(rigged: RiggedSite) -> None:
    run = rigged.run("away").start()

    for fault, length_s in (("down", DOWN_S), ("fail", 2.0), ("slow 2", 3.0)):
        rigged.set_store(fault)
        time.sleep(length_s)  # the length of the outage is the fault
        assert rigged.installation.get("/v1/ledger")["pending"] > 0, "the spool holds it meanwhile"
        rigged.set_store("")
        run.wait_acked(50)

    run.check(within_s=90 + DOWN_S)


def test_store_down_while_everything_is_killed(rigged: RiggedSite) -> None:
    run = rigged.run("downed").start()
    rigged.set_store("down")
    for name in ("writer", "ingest-json", "bridge"):
        rigged.kill(name)
        run.wait_acked(60)
    rigged.set_store("")

    run.check()


def test_refused_points_cost_themselves_only_and_can_be_replayed(rigged: RiggedSite) -> None:
    rigged.set_store("refuse")
    run = rigged.run("refused").start()
    run.wait_acked(200)
    found = run.finish()
    assert 0 < found.lost < 0.2 * found.acked, "each tenth is in quarantine"
    assert (found.duplicates, found.wrong, found.foreign) == (0, 0, 0)
    names = sorted({example.split("'")[1] for example in found.examples})
    assert rigged.installation.quarantined(names[0])[0]["code"] == "store_refused"

    rigged.set_store("")
    for number in range(6):
        device = f"{run.name}-{number}"
        answer = rigged.installation.call("POST", "/v1/quarantine:replay", {"filter": {"device": device}})
        assert answer.status == 200, answer

    again = verdict.judge(rigged.door, run.history.folder)
    assert again.is_clean, again
    assert again.stored == again.acked


def test_files_locked_by_another_program_are_waited_for(rigged: RiggedSite) -> None:
    run = rigged.run("locked").start()
    newest = max((rigged.data / "series").rglob("*.db"), key=lambda path: path.stat().st_mtime)
    other = apsw.Connection(str(newest))
    other.set_busy_timeout(10_000)
    other.execute("BEGIN IMMEDIATE")
    wait_until(lambda: rigged.installation.get("/v1/ledger")["pending"] > 50, 30, "readings wait")
    other.execute("ROLLBACK")
    other.close()

    run.check()
