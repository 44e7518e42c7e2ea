"""A bridge with a dead or stuck thread ends, so that it is started again; one that rightly waits does not."""

from __future__ import annotations

from chassis.ending import EXIT_CODE
from tests.support.waiting import wait_until


def test_dead_thread_ends_the_process(bridge_start):
    process = bridge_start(mutation="dead_thread")

    assert process.wait(15) == EXIT_CODE


def test_stuck_network_thread_ends_the_process(bridge_start):
    process = bridge_start(mutation="stuck_network")

    assert process.wait(20) == 1


def test_stuck_sender_ends_the_process_and_costs_nothing(bridge_start, bridge_ingest, bridge_publisher):
    process = bridge_start(mutation="stuck_sender").wait_ready()
    bridge_publisher.send_numbers(10)

    assert process.wait(20) == 1
    bridge_start().wait_ready()
    wait_until(lambda: len(bridge_ingest.payloads()) == 10, what="the next one takes them")


def test_idle_and_unavailing_bridge_is_left_alone(bridge_start, bridge_ingest, bridge_publisher):
    bridge_ingest.behave = lambda batch: (503, b"")
    process = bridge_start(mutation="stuck_none", retry_first_s=0.01, retry_most_s=0.05).wait_ready()
    bridge_publisher.send_numbers(10)

    wait_until(lambda: len(bridge_ingest.batches) > 40, what="many turns of the watchdog")
    assert process.stop() == 0
