from __future__ import annotations

import threading

import pytest

from chassis import workers


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


def test_stop_ends_loops() -> None:
    owner, called = workers.Workers(), threading.Event()
    thread = owner.every("tick", 0.01, called.set)

    assert called.wait(5)
    assert owner.are_alive()
    owner.stop()

    assert not thread.is_alive()
