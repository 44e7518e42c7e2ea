"""Group commit: many threads, one commit at a time, every caller told the truth."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.batcher import GroupCommit
from ingest.spool.reader import SpoolReader
from tests.support.tiny_loop import TinyLoop
from wire.errors import HeadwaterError, SpoolFull, Unavailable


class SlowLog:
    """Commits when it is told to; remembers the groups."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.groups: list[int] = []
        self.failure: Exception | None = None
        self.number = 0
        self.busy = threading.Lock()
        self.is_closed = False

    def commit(self, bodies: Sequence[frames.Body]) -> None:
        assert self.busy.acquire(blocking=False), "two commits at once"
        self.entered.set()
        assert self.gate.wait(10)
        self.busy.release()
        if self.failure:
            raise self.failure
        self.groups.append(len(bodies))
        self.number += sum(body.readings for body in bodies)

    def size_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self.is_closed = True


def readings(*numbers: int) -> list[Reading]:
    return [Reading("d", "telemetry", number, number, {"n": number}) for number in numbers]


def wait_until_queued(group: GroupCommit, count: int) -> None:
    deadline = threading.Event()
    for _ in range(2_000):
        with group._lock:
            if len(group._queue) == count:
                return
        deadline.wait(0.005)
    raise AssertionError("not queued")


def test_requests_that_wait_share_one_commit() -> None:
    log = SlowLog()
    group = GroupCommit(log)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(group.append, readings(0))
        assert log.entered.wait(5)
        rest = [pool.submit(group.append, readings(number, number)) for number in range(8)]
        wait_until_queued(group, 8)

        log.gate.set()
        for each in (first, *rest):
            each.result(10)

    assert log.groups == [1, 8]
    assert group.accepted() == 17


@pytest.mark.parametrize("failure", [SpoolFull("full", retry_after_s=5), OSError("odd"), ValueError("a fault of ours")])
def test_every_waiting_request_learns_of_the_failure(failure: Exception) -> None:
    log = SlowLog()
    log.failure = failure
    log.gate.set()
    group = GroupCommit(log)

    with ThreadPoolExecutor(4) as pool:
        errors = [each.exception(10) for each in [pool.submit(group.append, readings(1)) for _ in range(4)]]
    log.failure = None
    group.append(readings(2))

    assert all(isinstance(error, Unavailable) for error in errors)
    assert len({id(error) for error in errors}) == 4
    assert all(isinstance(error, HeadwaterError) and error.status == 503 for error in errors)
    assert log.groups == [1]


def test_full_queue_refuses_instead_of_growing() -> None:
    log = SlowLog()
    group = GroupCommit(log, queue_bytes=100)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(group.append, readings(0))
        assert log.entered.wait(5)
        waiting = pool.submit(group.append, readings(1))
        wait_until_queued(group, 1)

        with pytest.raises(Unavailable, match="wait for the spool"):
            group.append(readings(2))
        log.gate.set()
        leader.result(10)
        waiting.result(10)

    assert group.accepted() == 2


def test_disk_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.spool.batcher.WAIT_S", 0.05)
    log = SlowLog()
    group = GroupCommit(log)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(group.append, readings(0))
        assert log.entered.wait(5)

        with pytest.raises(Unavailable, match="did not answer"):
            group.append(readings(1))
        log.gate.set()
        leader.result(10)
        group.append(readings(2))

    assert log.groups == [1, 1]


def test_closing_waits_for_the_commit_and_refuses_afterwards() -> None:
    log = SlowLog()
    group = GroupCommit(log)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(group.append, readings(0))
        assert log.entered.wait(5)
        closing = pool.submit(group.close)
        assert not log.is_closed
        log.gate.set()
        waiting.result(10)
        closing.result(10)

    assert log.is_closed
    with pytest.raises(Unavailable, match="closed"):
        group.append(readings(1))


def test_files_of_a_commit_that_never_ends_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed under it, their descriptors would be given to other files, and it would write there."""
    monkeypatch.setattr("ingest.spool.batcher.WAIT_S", 0.05)
    log = SlowLog()
    group = GroupCommit(log)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(group.append, readings(0))
        assert log.entered.wait(5)

        group.close()

        assert not log.is_closed
        log.gate.set()
        stuck.result(10)


def test_many_threads_on_a_real_spool_lose_and_repeat_nothing(tmp_path: Path) -> None:
    group = GroupCommit(segments.open_spool(tmp_path / "json", limit_bytes=1 << 30, floor_bytes=0))

    def append_all(start: int) -> None:
        for number in range(start, start + 50):
            group.append(readings(number))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(append_all, range(0, 1600, 100)))
    found = [each.time_ns for each in SpoolReader(tmp_path, {}).take(10_000).readings]

    assert sorted(found) == sorted(start + step for start in range(0, 1600, 100) for step in range(50))
    assert group.accepted() == 800
    for start in range(0, 1600, 100):
        mine = [number for number in found if start <= number < start + 100]
        assert mine == sorted(mine)
    group.close()
    group.close()


def test_nothing_to_append_is_no_commit() -> None:
    log = SlowLog()

    GroupCommit(log).append([])

    assert log.groups == []


class UnreliableFiles(segments.DiskFiles):
    """A disk that fails one write or sync in thirty, and often writes only a part."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def write(self, descriptor: int, content: bytes, offset: int) -> int:
        if self.chance.random() < 1 / 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = self.chance.randrange(1, len(content) + 1) if self.chance.random() < 0.2 else len(content)
        return super().write(descriptor, content[:part], offset)

    def sync(self, descriptor: int) -> None:
        if self.chance.random() < 1 / 30:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(descriptor)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reading_along_with_a_failing_disk_loses_and_invents_nothing(tmp_path: Path, seed: int) -> None:
    files = UnreliableFiles(seed)
    group = GroupCommit(segments.open_spool(tmp_path / "json", limit_bytes=100_000, floor_bytes=0, files=files))
    acked: set[int] = set()

    def append_all(start: int) -> None:
        for number in range(start, start + 300, 3):
            with suppress(Unavailable):
                group.append(readings(number, number + 1, number + 2))
                acked.update((number, number + 1, number + 2))

    reader, found, damaged = SpoolReader(tmp_path, {}), [], 0
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(append_all, start) for start in range(0, 4_000, 1_000)]
        is_last = False
        while not is_last:
            is_last = all(each.done() for each in running)
            while (taken := reader.take(50)).positions:
                found += [each.time_ns for each in taken.readings]
                damaged += taken.damaged
                reader.drop_consumed(taken.positions)
    group.close()

    assert 0 < len(acked) < 1_200
    assert sorted(found) == sorted(acked)
    assert damaged == 0
    assert segments.accepted_total(tmp_path) == len(found)


def test_requests_on_a_loop_commit_together_and_never_block_it() -> None:
    log, loop, done = SlowLog(), TinyLoop(), []
    group = GroupCommit(log)

    for number in range(4):
        loop.begin(lambda number=number: done.append(group.append(readings(number))))
    log.entered.wait(10)  # a thread leads; the loop is free
    assert done == []
    log.gate.set()
    loop.run_until(lambda: len(done) == 4)

    assert len(done) == 4
    assert sum(log.groups) == 4
    assert len(log.groups) <= 2
    group.close()


def test_lead_goes_from_a_thread_to_a_loop_and_back() -> None:
    log, loop, done = SlowLog(), TinyLoop(), []
    group = GroupCommit(log)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(group.append, readings(1))
        log.entered.wait(10)
        loop.begin(lambda: done.append(group.append(readings(2))))
        second = pool.submit(group.append, readings(3))
        wait_until_queued(group, 2)
        log.gate.set()
        first.result(10)
        loop.run_until(lambda: len(done) == 1)
        second.result(10)

    assert sum(log.groups) == 3
    assert len(done) == 1
    group.close()


def test_failed_commit_is_told_to_every_request_of_a_loop() -> None:
    log, loop, told = SlowLog(), TinyLoop(), []
    group = GroupCommit(log)
    log.failure = SpoolFull("no room", retry_after_s=7)

    def append(number: int) -> None:
        with pytest.raises(SpoolFull) as caught:
            group.append(readings(number))
        told.append(caught.value.retry_after_s)

    for number in range(3):
        loop.begin(lambda number=number: append(number))
    log.gate.set()
    loop.run_until(lambda: len(told) == 3)

    assert told == [7, 7, 7]
    group.close()


def test_request_on_a_loop_that_waited_too_long_leaves_the_queue() -> None:
    log, loop, told = SlowLog(), TinyLoop(), []
    group = GroupCommit(log)

    def append(number: int) -> None:
        with suppress(Unavailable):
            group.append(readings(number))
            told.append(number)

    loop.begin(lambda: append(0))
    log.entered.wait(10)
    loop.begin(lambda: append(1))
    group._queue[0].event.resume()  # as the loop does at the deadline
    log.gate.set()
    loop.run_until(lambda: bool(told))
    group.append(readings(5))

    assert told == [0]
    assert sum(log.groups) == 2
    group.close()


def test_loop_leads_itself_where_the_disk_was_quick() -> None:
    log, loop, done = SlowLog(), TinyLoop(), []
    log.gate.set()
    group = GroupCommit(log)
    threads: list[str] = []
    commit = log.commit

    def noting(bodies: Sequence[frames.Body]) -> None:
        threads.append(threading.current_thread().name)
        commit(bodies)

    log.commit = noting
    for is_quick in (False, True):
        group._is_quick = is_quick
        for number in range(3):
            loop.begin(lambda number=number: done.append(group.append(readings(number))))
        wanted = len(done) + 3
        loop.run_until(lambda wanted=wanted: len(done) == wanted)

    assert threads[0].startswith("spool-commit")
    assert threads[-1] == threading.current_thread().name
    assert log.groups[-1] == 3
    group.close()


def test_slow_disk_and_large_groups_do_not_hold_up_a_loop() -> None:
    log, loop, done = SlowLog(), TinyLoop(), []
    group = GroupCommit(log)
    group._is_quick = True
    large = [Reading("d", "telemetry", number, number, {"s": "x" * 1000}) for number in range(400)]

    loop.begin(lambda: done.append(group.append(large)))
    assert log.entered.wait(10)  # a thread commits although this one has not turned
    threading.Timer(0.01, log.gate.set).start()
    loop.run_until(lambda: bool(done))

    assert not group._is_quick
    group.close()
