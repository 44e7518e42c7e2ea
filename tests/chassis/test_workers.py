from __future__ import annotations

import threading

import pytest

from chassis import workers
from wire.errors import Unavailable


def test_a_faulted_thread_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "RESTART_AFTER_S", 0.01)
    owner, turns, done = workers.Workers(), [], threading.Event()

    def work() -> None:
        turns.append(1)
        if len(turns) < 3:
            raise RuntimeError("planted")
        done.set()

    owner.start("worker", work)

    assert done.wait(5)
    owner.stop()


def test_trouble_outside_is_said_once_and_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "RESTART_AFTER_S", 0.001)
    owner, turns, done = workers.Workers(), [], threading.Event()

    def work() -> None:
        turns.append(1)
        if len(turns) < 5:
            raise Unavailable("the disk is full")
        done.set()

    owner.start("worker", work)

    assert done.wait(5)
    owner.stop()
    assert [record.getMessage() for record in caplog.records] == ["worker_waits"]
    assert not any(record.exc_info for record in caplog.records)


def test_stop_ends_loops() -> None:
    owner, called = workers.Workers(), threading.Event()
    thread = owner.every("tick", 0.01, called.set)

    assert called.wait(5)
    assert owner.are_alive()
    owner.stop()

    assert not thread.is_alive()
