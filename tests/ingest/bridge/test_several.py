"""Several real bridges share the messages of one broker: killed, and taken out of service, without a loss."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random

import pytest

from tests.ingest.bridge.support import BridgeProcess, Broker, Ingest
from tests.support.waiting import wait_until

Start = Callable[..., BridgeProcess]


@pytest.fixture
def start_numbered(mosquitto: Broker, bridge_ingest: Ingest) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(number: int, bridges: int) -> BridgeProcess:
            process = BridgeProcess(mosquitto, bridge_ingest, batch_messages=100, linger_s=0.0)
            process._log = mosquitto.folder / f"bridge-{number}-{bridges}.log"
            process.environ |= {
                "HEADWATER_BROKER_USERNAME": f"_bridge-{number}",
                "HEADWATER_BRIDGES": str(bridges),
                "HEADWATER_BRIDGE_NUMBER": str(number),
                "HEADWATER_BROKER_SESSION_FILE": str(mosquitto.folder / f"bridge-{number}.session"),
            }
            stack.callback(process.stop)
            return process.start().wait_ready()

        yield start


def test_kills_of_one_of_two_bridges_lose_nothing(start_numbered, bridge_ingest, bridge_publisher):
    random = Random(11)
    bridges = [start_numbered(1, 2), start_numbered(2, 2)]

    for number in range(6):
        bridge_publisher.send_numbers(500, first=number * 500)
        victim = random.choice(bridges)
        victim.stop(signal.SIGKILL)
        victim.start()
    bridge_publisher.wait_acked()

    wait_until(lambda: len(bridge_ingest.payloads()) == 3000, 30, "all are taken")
    copies = len(bridge_ingest.taken) - sum(not each.dup for each in bridge_ingest.taken)
    assert len(bridge_ingest.taken) - copies <= 3000, "what came twice is marked as sent again"


def test_each_message_goes_to_one_of_them_and_both_work(start_numbered, bridge_ingest, bridge_publisher):
    senders: set[str] = set()
    take_all = bridge_ingest.behave
    bridge_ingest.behave = lambda batch: senders.add(batch.bridge.split("/")[0]) or take_all(batch)
    start_numbered(1, 2)
    start_numbered(2, 2)

    bridge_publisher.send_numbers(1000)

    wait_until(lambda: len(bridge_ingest.payloads()) == 1000, what="all are taken")
    assert len(bridge_ingest.taken) == 1000
    assert senders == {"_bridge-1", "_bridge-2"}


def test_bridge_taken_out_of_service_hands_in_what_its_session_holds(
    start_numbered, mosquitto, bridge_ingest, bridge_publisher
):
    both = [start_numbered(1, 2), start_numbered(2, 2)]
    for bridge in both:
        bridge.stop()
    bridge_publisher.send_numbers(500)
    bridge_publisher.wait_acked()

    start_numbered(1, 1)
    retired = start_numbered(2, 1)
    wait_until(lambda: len(bridge_ingest.payloads()) == 500, what="both shares are taken")
    retired.stop()
    bridge_publisher.send_numbers(500, first=500)

    wait_until(lambda: len(bridge_ingest.payloads()) == 1000, what="all goes to the one that is left")
    assert not (mosquitto.folder / "bridge-2.session").exists(), "and the next start needs no second bridge"
    assert (mosquitto.folder / "bridge-1.session").exists()
