"""Questions to a server on an event loop: while it works at them others run, and no more wait for it than it should do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Connection, text

from chassis.parking import LoopWaiter
from devices.database.engine import ASKED, MOST, TURN_S, Database
from devices.database.postgresql import PATIENCE
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


def one(connection: Connection) -> int:
    return int(connection.execute(text("SELECT 1")).scalar_one())


def waiting(connection: Connection) -> int:
    return int(connection.execute(text(f"SELECT count(*) {WAITING}")).scalar_one())


def test_others_run_while_the_server_works(database) -> None:
    loop, said = TinyLoop(), []
    with database.look() as holder:
        holder.execute(LOCK)
        loop.begin(lambda: said.append(database.ask(wait_for_lock)))
        wait_until(lambda: not turn_once(loop) and waiting(holder))
        loop.begin(lambda: said.append(database.ask(one)))
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


class Impatient(TinyLoop):
    """Lets TURN_S be over at the next turn."""

    def park(self, waiter: LoopWaiter, timeout_s: float | None) -> None:
        if timeout_s == TURN_S:
            self.woken.put(waiter.resume)


def test_who_finds_the_server_far_behind_is_told_so(database) -> None:
    loop, said = Impatient(), list[Any]()

    def ask() -> None:
        try:
            said.append(database.ask(wait_for_lock))
        except Unavailable as error:
            said.append(error.code)

    with database.look() as holder:
        holder.execute(LOCK)
        for _ in range(ASKED + 2):
            loop.begin(ask)
        loop.run_until(lambda: len(said) == 2)
        holder.execute(UNLOCK)
        loop.run_until(lambda: len(said) == ASKED + 2)

    assert said == ["registry_unavailable"] * 2 + ["MainThread"] * ASKED


def test_threads_that_hold_all_their_connections_hold_up_no_loop(database) -> None:
    loop, said = TinyLoop(), []
    with ExitStack() as held:
        for _ in range(MOST):
            held.enter_context(database.look())
        loop.begin(lambda: said.append(database.ask(one)))
        loop.run_until(lambda: said == [1])


def test_very_first_questions_wait_for_no_lock_of_each_other(database) -> None:
    said = []

    def ask_all() -> None:
        loop = TinyLoop()
        for _ in range(ASKED):
            loop.begin(lambda: said.append(database.ask(one)))
        loop.run_until(lambda: len(said) == ASKED)

    threading.Thread(target=ask_all, daemon=True).start()  # one that waits for itself does so for ever

    wait_until(lambda: said == [1] * ASKED, what="answers")


def test_server_that_vanished_is_not_waited_for_long(database) -> None:
    with database.look() as connection:
        driver: Any = connection.connection.dbapi_connection
        with socket.socket(fileno=driver.pgconn.socket) as opened:
            options = socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL
            found = [opened.getsockopt(socket.IPPROTO_TCP, option) for option in options]
            opened.detach()

    assert found == [PATIENCE[name] for name in ("tcp_user_timeout", "keepalives_idle", "keepalives_interval")]


def turn_once(loop: TinyLoop) -> bool:
    """Take a turn if somebody was woken; tell whether so."""
    if loop.woken.empty():
        return False
    loop.turn()
    return True
