"""A reading on its way from a simulated device, and the two ports between a device, its transport and the books."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from simulators.control import Said

AUTH_GRACE_S = 10.0  # a fresh credential reaches broker and gate within seconds: a refusal until then is retried
AUTH_RETRY_S = 0.5
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0


@dataclass(slots=True, eq=False)
class Outgoing:
    """One message with one reading. It is kept, and sent again, until it is acknowledged or refused."""

    device: int
    seq: int
    ts: int
    payload: bytes
    is_malformed: bool = False
    sent_at: float = 0.0  # time.monotonic of the first transmission; 0 = not sent yet
    is_settled: bool = False
    boot_id: str = ""  # with `seq`, by which the platform tells that it has the reading
    said: Said | None = None  # no reading, but what the device says of a command or its twin


@dataclass(frozen=True, slots=True)
class Login:
    """What a device proves itself with; without a secret it connects anonymously (a bare broker)."""

    device_id: str
    secret: str = ""
    bearer: str = ""


Renew = Callable[[str], Awaitable[Login | None]]  # asks the platform for a new credential of a device

Spawn = Callable[[Coroutine[Any, Any, None]], object]  # has it run; its failure is that of the run

Keep = Callable[[Login], None]  # told of the new credential of a device, to be used in the next run, too


class Sink(Protocol):
    """The books: told what happened to each message."""

    def sent(self, outgoing: Outgoing) -> None: ...
    def acked(self, outgoing: Outgoing, *, is_quarantined: bool = False) -> None: ...
    def refused(self, outgoing: Outgoing) -> None: ...
    def error(self, name: str) -> None: ...


class Sender(Protocol):
    """A device's way to the platform. `backlog` counts what is neither acknowledged nor refused.

    `doubtful` counts what was acknowledged, but perhaps by a broker that has forgotten it since.
    `start` calls `ready` once, when the first message can go out; `is_done` = closed, and nothing of it is left.
    `break_connection` is a lost radio link, `lose_power` also forgets what only memory held: all but the queue.
    """

    @property
    def backlog(self) -> int: ...
    @property
    def doubtful(self) -> int: ...
    def offer(self, outgoing: Outgoing) -> None: ...
    def flush(self) -> None: ...
    def break_connection(self) -> None: ...
    def lose_power(self) -> None: ...
    @property
    def is_done(self) -> bool: ...
    def start(self, spawn: Spawn, ready: Callable[[], None]) -> None: ...
    def close(self) -> None: ...


def backoff_s(failures: int, jitter: float) -> float:
    """Give the wait before the next attempt: doubling, capped, spread by a jitter of 0 to 1."""
    ceiling = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * (1 << min(failures, 10)))
    return ceiling * (0.5 + 0.5 * jitter)
