"""What faults need inside a process of the product, put there from outside: Python runs this file when PYTHONPATH names
its folder. The product has no switch for any of it.

FAULT_BROKER, FAULT_INGEST_URL   where the bridge finds broker and ingestion: a proxy of the tests
FAULT_STORE                      a file that says what the writer's store does: "down", "fail", "slow S", "refuse", or ""
FAULT_MUTATION                   a safeguard to take out (tests/faults/mutations.py)
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_words = sys.orig_argv
ROLE = next((role for role in ("up", "bridge", "writer", "ingest", "devices", "dashboard") if role in _words), "")


def lead_through_proxies() -> None:
    for name in ("BROKER", "INGEST_URL"):
        if f"FAULT_{name}" in os.environ:
            os.environ[f"HEADWATER_{name}"] = os.environ[f"FAULT_{name}"]


def break_store(control: Path) -> None:
    """Stand before the real engine, at its port."""
    import series
    from series.port import Refusal
    from wire.errors import StoreUnavailable

    class Broken:
        def __init__(self, engine):
            self._engine = engine

        def __getattr__(self, name):
            return getattr(self._engine, name)

        def health(self):
            return "the store answers 500" if control.read_text() == "fail" else self._engine.health()

        def write(self, points, *, timeout_s=10.0):
            fault, _, argument = control.read_text().partition(" ")
            if fault == "down":
                raise StoreUnavailable("the store is down")
            if fault == "fail":
                raise RuntimeError("the store answered 500")
            if fault == "slow":
                time.sleep(float(argument))
            good = [
                index for index, each in enumerate(points) if fault != "refuse" or each.fields.get("n", 0) % 10 != 3
            ]
            outcome = self._engine.write([points[index] for index in good], timeout_s=timeout_s)
            ours = [Refusal(i, "store_refused", "of the test") for i in set(range(len(points))) - set(good)]
            outcome.refused.extend(sorted(ours, key=lambda each: each.index))
            return outcome

    real = series.open_writer
    series.open_writer = lambda *values, **named: Broken(real(*values, **named))


def automatic_ack() -> None:
    from ingest.bridge.session import Session

    receive = Session._receive

    def acknowledge_at_once(session, deliveries):
        session._client.acknowledge([each.mid for each in deliveries if each.mid])
        receive(session, deliveries)

    Session._receive = acknowledge_at_once


def no_epoch_guard() -> None:
    from ingest.bridge.session import Session

    settle_one = Session._settle_one

    def over_any_connection(session, settled):
        settled.epoch = session._epoch
        settle_one(session, settled)

    Session._settle_one = over_any_connection


def no_fsync() -> None:
    from ingest.spool.segments import DiskFiles

    assert DiskFiles.sync
    DiskFiles.sync = lambda files, descriptor: None


def no_dedupe() -> None:
    from ingest.writer.dedupe import Dedupe

    assert Dedupe.sift
    Dedupe.sift = lambda dedupe, readings, now_s: list(range(len(readings)))


def default_queue() -> None:
    from compose import broker

    assert "max_queued_messages" in broker.TEMPLATE.read_text()
    fill = broker.fill

    def without_the_limit(template, values):
        return "\n".join(line for line in fill(template, values).split("\n") if "max_queued" not in line)

    broker.fill = without_the_limit


MUTATIONS = {
    "automatic_ack": ("bridge", automatic_ack),
    "no_epoch_guard": ("bridge", no_epoch_guard),
    "no_fsync": ("ingest", no_fsync),
    "no_dedupe": ("writer", no_dedupe),
    "default_queue": ("up", default_queue),
}

if ROLE == "bridge":
    lead_through_proxies()
if ROLE == "writer" and "FAULT_STORE" in os.environ:
    break_store(Path(os.environ["FAULT_STORE"]))
if (_mutation := os.environ.get("FAULT_MUTATION")) and MUTATIONS[_mutation][0] == ROLE:
    MUTATIONS[_mutation][1]()
