"""Questions to a server on an event loop: while it works at them others run, and no more wait for it than it should do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from devices.database.engine import ASKED, Database
from tests.devices.postgresql import Cluster
from tests.support.tiny_loop import TinyLoop
from tests.support.waiting import wait_until
from wire.errors import Unavailable

LOCK, UNLOCK = text("SELECT pg_advisory_lock(7)"), text("SELECT pg_advisory_unlock_all()")
WAITING = "FROM pg_stat_activity WHERE wait_event = 'advisory'"


@pytest.fixture
def database(postgresql: Cluster, tmp_path) -> Iterator[Database]:
    opened = Database(postgresql.registry(), tmp_path)
    yield opened
    opened.close()


def wait_for_lock(connection: Connection) -> str:
    connection.execute(text("SET lock_timeout = '10s'"))  # a loop that is held up fails, rather than waits for itself
    connection.execute(LOCK)
    connection.execute(UNLOCK)
    return threading.current_thread().name


def waiting(connection: Connection) -> int:
    return int(connection.execute(text(f"SELECT count(*) {WAITING}")).scalar_one())


def test_others_run_while_the_server_works(database) -> None:
    loop, said = TinyLoop(), []
    with database.look() as holder:
        holder.execute(LOCK)
        loop.begin(lambda: said.append(database.ask(wait_for_lock)))
        wait_until(lambda: not turn_once(loop) and waiting(holder))
        loop.begin(lambda: said.append(database.ask(lambda c: c.execute(text("SELECT 1")).scalar_one())))
        loop.run_until(lambda: said == [1])
        holder.execute(UNLOCK)
        loop.run_until(lambda: len(said) == 2)

    assert said == [1, "MainThread"]


def test_connection_that_is_cut_meanwhile_is_told(database) -> None:
    loop, said = TinyLoop(), []

    def ask() -> None:
        with pytest.raises(Unavailable) as refused:
            database.ask(wait_for_lock)
        said.append(refused.value.code)

    with database.look() as holder:
        holder.execute(LOCK)
        loop.begin(ask)
        wait_until(lambda: not turn_once(loop) and waiting(holder))
        holder.execute(text(f"SELECT pg_terminate_backend(pid) {WAITING}"))
        loop.run_until(lambda: bool(said))
        holder.execute(UNLOCK)

    assert said == ["registry_unavailable"]
    loop.begin(lambda: said.append(database.ask(wait_for_lock)))
    loop.run_until(lambda: len(said) == 2)
    assert said[1] == "MainThread"


def test_a_bounded_number_is_asked_at_once(database) -> None:
    loop, said = TinyLoop(), list[Any]()
    with database.look() as holder:
        holder.execute(LOCK)
        for _ in range(ASKED + 3):
            loop.begin(lambda: said.append(database.ask(wait_for_lock)))
        wait_until(lambda: not turn_once(loop) and waiting(holder) >= ASKED)
        assert waiting(holder) == ASKED
        holder.execute(UNLOCK)
        loop.run_until(lambda: len(said) == ASKED + 3)


def turn_once(loop: TinyLoop) -> bool:
    """Take a turn if somebody was woken; tell whether so."""
    if loop.woken.empty():
        return False
    loop.turn()
    return True
