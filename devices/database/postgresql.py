"""Connections to PostgreSQL that leave an event loop to others while the server works."""

from __future__ import annotations

from typing import Any

import psycopg

from chassis import parking

# Of libpq. A server that vanished (its machine, or the way to it) says nothing, and the kernel's own patience with it
# is a quarter of an hour for what was sent, two hours for an answer: by then nobody here has a connection left.
PATIENCE = {
    "connect_timeout": 10,  # s
    "keepalives_idle": 10,  # s
    "keepalives_interval": 5,  # s
    "tcp_user_timeout": 20_000,  # ms
}


class Connection(psycopg.Connection[Any]):
    """Waits as `chassis.parking` says; off an event loop as ever.

    psycopg hands what it has to wait for to `wait` as a generator that yields `selectors` events of the socket, and
    takes those that came (psycopg 3.3, `psycopg.waiting`).
    """

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """See psycopg.Connection."""
        if parking.loop() is None:
            return super().wait(gen, *args, **kwargs)
        try:
            events = next(gen)
            while True:
                parking.until_ready(self.pgconn.socket, events)
                events = gen.send(events)
        except StopIteration as end:
            return end.value


def connect(_dialect: Any, _record: Any, args: list[Any], named: dict[str, Any]) -> Connection:
    """Connect as SQLAlchemy's event `do_connect` asks for it: finding the server may block. The URL goes first."""
    return parking.aside(Connection.connect, *args, **PATIENCE | named)
