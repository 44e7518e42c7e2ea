"""F3, F4 and the bridge's promise: the broker killed with and without its state, the bridge cut off and misled."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.rig import RiggedSite
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]


def kill_broker_without_state(site: RiggedSite) -> None:
    """Message ids of the bridge's session begin at 1 again."""
    state = site.data / "broker/mosquitto.db"
    before = site.pid("broker")
    site.kill("broker", signal.SIGSTOP)
    state.unlink(missing_ok=True)
    site.kill("broker")
    wait_until(lambda: site.pid("broker") != before, 20, "the broker is back")


def wait_for_bridge(site: RiggedSite) -> None:
    wait_until(lambda: site.is_ready("bridge"), 30, "the bridge is subscribed")


def test_bridge_killed_with_a_batch_unanswered_loses_nothing(rigged: RiggedSite) -> None:
    run = rigged.run("unanswered").start(http=0)
    rigged.to_ingest.silence()
    run.wait_acked(200)  # by the broker; the bridge reads them, and no answer comes

    before = rigged.kill("bridge")
    rigged.to_ingest.reset()
    wait_until(lambda: rigged.pid("bridge") != before, 20, "the bridge is back")
    rigged.to_ingest.heal()

    run.check()


def test_stale_acks_of_an_earlier_session_delete_nothing(rigged: RiggedSite) -> None:
    """T10: the answer to a batch comes after the broker has given its message ids to new messages."""
    kill_broker_without_state(rigged)
    wait_for_bridge(rigged)
    old, new = rigged.run("old"), rigged.run("new")
    for run in (old, new):
        run.connect(mqtt=2)
    rigged.to_broker.cut()
    old.send(40)
    rigged.to_ingest.silence(down=True, up=False)
    rigged.to_broker.heal()  # all come at once, and so in one batch with the ids from 1
    wait_for_bridge(rigged)
    time.sleep(0.5)  # the batch is posted and taken; its answer does not come

    kill_broker_without_state(rigged)
    wait_for_bridge(rigged)
    new.connect()
    new.send(20)
    time.sleep(0.5)  # the bridge has read them
    rigged.to_ingest.silence(up=True, down=False)  # nothing new reaches the service, but the old answer the bridge
    time.sleep(0.5)
    before = rigged.kill("bridge")
    rigged.to_ingest.reset()
    rigged.to_ingest.heal()
    wait_until(lambda: rigged.pid("bridge") != before, 20, "the bridge is back")

    new.check()
    old.finish()  # what of it was not yet in the batch went with the broker's state


def test_queue_holds_for_a_bridge_that_is_away(rigged: RiggedSite) -> None:
    run = rigged.run("away").start(http=0, per_tick=8)
    rigged.to_broker.cut()

    run.wait_acked(2_500)  # the default of mosquitto keeps 1,000
    rigged.to_broker.heal()

    run.check()


def test_broker_killed_with_and_without_its_state(rigged: RiggedSite) -> None:
    """What it forgets, devices that heed the acks topic send again."""
    run = rigged.run("killed").repairing().start(per_tick=4)

    for _ in range(2):
        before = rigged.kill("broker")
        wait_until(lambda before=before: rigged.pid("broker") != before, 20, "the broker is back")
        run.wait_acked(300)
    kill_broker_without_state(rigged)
    run.wait_acked(300)

    run.check()
