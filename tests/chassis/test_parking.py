"""Parking: what waits in a request lets the loop go on; off a loop it blocks as ever."""

from __future__ import annotations

import os
import selectors
import threading

import pytest

from chassis import parking
from tests.support.tiny_loop import TinyLoop


def test_aside_off_a_loop_is_a_plain_call() -> None:
    assert parking.aside(threading.current_thread) is threading.current_thread()
    assert parking.loop() is None


def test_aside_on_a_loop_runs_in_a_thread_while_others_run() -> None:
    loop, seen = TinyLoop(), []
    gate = threading.Event()

    def slow() -> None:
        seen.append(parking.aside(lambda: gate.wait(10) and threading.current_thread().name))

    loop.begin(slow)
    loop.begin(lambda: seen.append(parking.loop() is loop))
    gate.set()
    loop.turn()

    assert seen == [True, "tiny_0"]


def test_error_aside_is_raised_in_the_request() -> None:
    loop, seen = TinyLoop(), []

    def failing() -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            parking.aside(lambda: 1 // 0)
        seen.append(caught.type)

    loop.begin(failing)
    loop.turn()

    assert seen == [ZeroDivisionError]


def test_waiter_set_before_the_wait_does_not_park() -> None:
    loop, seen = TinyLoop(), []

    def run() -> None:
        waiter = parking.waiter()
        waiter.set()
        seen.append(waiter.wait(1.0))

    loop.begin(run)
    loop.turn()  # the wake that came too early finds nobody

    assert seen == [True]
    assert loop.parked == []


def test_waiter_resumed_without_a_set_tells_so() -> None:
    loop, seen, made = TinyLoop(), [], []

    def run() -> None:
        made.append(parking.waiter())
        seen.append(made[0].wait(1.0))

    loop.begin(run)
    made[0].resume()
    made[0].set()
    loop.turn()  # too late: it goes on once only

    assert seen == [False]
    assert loop.parked == [1.0]


def test_waiter_off_a_loop_blocks_its_thread() -> None:
    waiter = parking.waiter()
    threading.Timer(0.01, waiter.set).start()

    assert waiter.wait(10)


def test_who_is_given_no_place_in_time_leaves_the_queue() -> None:
    places = parking.Places(1)
    with places.take(), pytest.raises(TimeoutError), places.take(0.01):
        pass

    with places.take(0.01):  # it was kept for nobody
        pass


def test_waiting_for_a_descriptor_lets_others_run() -> None:
    loop, seen = TinyLoop(), []
    reading, writing = os.pipe()

    def read() -> None:
        parking.until_ready(reading, selectors.EVENT_READ)
        seen.append(os.read(reading, 10))

    loop.begin(read)
    loop.begin(lambda: seen.append(os.write(writing, b"here")))
    loop.turn()

    assert seen == [4, b"here"]


def test_places_are_given_in_the_order_of_asking_and_hold_up_nobody() -> None:
    loop, seen, places, gates = TinyLoop(), [], parking.Places(1), []

    def work(number: int) -> None:
        with places.take():
            seen.append(number)
            gates.append(parking.waiter())
            gates[-1].wait()

    for number in range(3):
        loop.begin(lambda number=number: work(number))
    assert seen == [0]
    for number in range(1, 3):
        gates[-1].set()
        loop.run_until(lambda number=number: seen[-1] == number)
    gates[-1].set()
    loop.turn()
    loop.begin(lambda: work(3))  # the place came back

    assert seen == [0, 1, 2, 3]
