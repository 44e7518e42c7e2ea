"""F11: each MQTT message five times and in another order, between devices and broker and between broker and bridge."""

from __future__ import annotations

import pytest

from tests.faults.proxy import Repeats
from tests.faults.rig import RiggedSite

pytestmark = [pytest.mark.e2e, pytest.mark.faults]


@pytest.mark.parametrize("where", ["from_devices", "to_broker"])
def test_messages_sent_five_times_in_disorder_are_kept_once(rigged: RiggedSite, where: str) -> None:
    proxy = getattr(rigged, where)
    proxy.repeats = Repeats(5, seed=11, from_server=where == "to_broker")
    proxy.reset()
    duplicates = rigged.installation.get("/v1/ledger")["duplicates"]
    run = rigged.run("repeated").start(http=0, per_tick=3)
    run.wait_acked(300)

    found = run.check()

    ledger = rigged.installation.settle()
    assert ledger["duplicates"] - duplicates >= found.acked, "the copies came, and were counted"
    assert ledger["accepted"] == ledger["stored"] + ledger["duplicates"]
