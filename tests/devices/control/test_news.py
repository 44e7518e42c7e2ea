"""The bell: who waits, how many, and who has to go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from chassis.workers import Workers
from devices.control.news import ANY, OF_ONE_DEVICE, Bell, Mark
from tests.support.tiny_loop import TinyLoop
from tests.support.waiting import wait_until
from wire.errors import Unavailable


class FakeNews:
    """Tells that all given devices changed whenever the number has grown."""

    def __init__(self) -> None:
        self.number = 0
        self.devices: list[str] = []

    def since(self, mark: Mark) -> tuple[Mark, list[str]]:
        newest = Mark(self.number, 0)
        return newest, [] if newest == mark else [*self.devices, ANY]


class Poller(threading.Thread):
    """A device that waits."""

    def __init__(self, bell: Bell, device: str, answer: list[str]) -> None:
        super().__init__(daemon=True)
        self._bell, self._device, self._answer = bell, device, answer
        self.looked = threading.Event()
        self.got: list[str | None] = []
        self.start()
        assert self.looked.wait(10)

    def run(self) -> None:
        self.got.append(self._bell.wait(self._device, self._look, 30, is_own=True))

    def _look(self) -> str | None:
        self.looked.set()
        return self._answer[0] if self._answer else None


@pytest.fixture
def workers() -> Iterator[Workers]:
    started = Workers()
    yield started
    started.stop()


def test_more_than_may_wait_are_told_to_come_again(workers) -> None:
    news, answer = FakeNews(), []
    bell = Bell(news, most=2)
    bell.start(workers)
    waiting = [Poller(bell, device, answer) for device in ("a", "b")]

    with pytest.raises(Unavailable) as refused:
        bell.wait("c", lambda: None, 30, is_own=True)
    assert (refused.value.code, refused.value.retry_after_s) == ("too_many_waiting", 10)
    assert bell.wait("c", lambda: "there already", 30, is_own=True) == "there already"
    assert bell.wait("c", lambda: None, 0, is_own=True) is None
    assert bell.wait("c", lambda: None, 0.01) is None  # operators and services are not counted

    news.devices, news.number = ["a", "b"], 1
    answer.append("news")
    bell.ring()
    wait_until(lambda: [each.got for each in waiting] == [["news"]] * 2)
    assert bell.wait("c", lambda: None, 0.01, is_own=True) is None  # there is room again


def test_newest_of_one_device_wait(workers) -> None:
    news, answer = FakeNews(), []
    bell = Bell(news)
    bell.start(workers)
    waiting = [Poller(bell, "a", answer) for _ in range(OF_ONE_DEVICE + 2)]

    wait_until(lambda: [each.got for each in waiting[:2]] == [[None]] * 2)
    assert [each.got for each in waiting[2:]] == [[]] * OF_ONE_DEVICE

    news.devices, news.number = ["a"], 1
    answer.append("news")
    bell.ring()
    wait_until(lambda: [each.got for each in waiting[2:]] == [["news"]] * OF_ONE_DEVICE)


def test_hundreds_wait_without_a_thread_each(workers) -> None:
    news, answer, got = FakeNews(), [], []
    bell, loop = Bell(news, most=200), TinyLoop()
    bell.start(workers)
    news.devices = [f"d{number}" for number in range(200)]
    before = threading.active_count()

    for device in news.devices:
        poll = partial(bell.wait, device, lambda: answer[0] if answer else None, 30, is_own=True)
        loop.begin(lambda poll=poll: got.append(poll()))
    loop.run_until(lambda: len([each_s for each_s in loop.parked if each_s is not None]) >= 200)
    assert threading.active_count() <= before + 2  # those of the loop
    news.number = 1
    answer.append("news")
    bell.ring()
    loop.run_until(lambda: len(got) == 200)

    assert got == ["news"] * 200
