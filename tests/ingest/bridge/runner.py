"""Runs the bridge with test limits, and on demand without one of its safeguards, to prove that the tests see it."""

from __future__ import annotations

import json
import sys
import threading

from chassis import settings
from chassis.peers import HttpPeer
from ingest.bridge import process
from ingest.bridge.config import BridgeConfig, Limits
from ingest.bridge.lane import Settled
from ingest.bridge.session import Session
from ingest.framing import Delivery


def acknowledge_at_once(session: Session, deliveries: list[Delivery]) -> None:
    session._client.acknowledge([each.mid for each in deliveries if each.mid])
    receive(session, deliveries)


def acknowledge_over_any_connection(session: Session, settled: Settled) -> None:
    settled.epoch = session._epoch
    settle_one(session, settled)


def die(session: Session) -> None:
    raise SystemExit


def hang(*_: object) -> None:
    threading.Event().wait()


receive, settle_one = Session._receive, Session._settle_one
mutation, limits = sys.argv[1], json.loads(sys.argv[2])
if mutation == "automatic_ack":
    Session._receive = acknowledge_at_once
elif mutation == "no_epoch_guard":
    Session._settle_one = acknowledge_over_any_connection
elif mutation == "dead_thread":
    Session._turn = die
elif mutation.startswith("stuck_"):
    process.WATCH_S = 0.02
    if mutation == "stuck_network":
        Session._turn = hang
    elif mutation == "stuck_sender":
        HttpPeer.call = hang

if __name__ == "__main__":
    sys.exit(process.run(settings.load(BridgeConfig), Limits(**limits)))
