"""Carries the registry's commands to the host that words them for its devices, and their answers back.

A command whose device cannot be reached now is kept until its claim is over, in case the device comes, and is claimed
again after that. The registry publishes what was worded, and notes it as sent when the broker has it.
"""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from chassis import logs
from chassis.peers import Peer
from ingest.protocols.base import Answer, Order, Worded, Words
from wire import clock
from wire.errors import HeadwaterError

log = logs.get(__name__)
CLAIM_S, AWAY_S = 4.0, 1.0  # a question to the registry, and until the next while it is away
AT_ONCE = 100
KEPT_S = 20.0  # of a claim, which is 30 s long: what is worded must get there before others may have it
LOOK_S = 1.0  # how soon a device is told what waited for it to come


class Courier:
    """Of one protocol. `claim_until` and `word_until` have a thread each; `ring` is for any."""

    def __init__(
        self, registry: Peer, protocol: str, host: Words, hold: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """`hold` keeps all others from using the host."""
        self._registry = registry
        self._protocol = protocol
        self._host = host
        self._hold = hold
        self._rung = threading.Event()
        self._lock = threading.Lock()  # guards _orders
        self._orders: dict[str, tuple[float, Order]] = {}  # until when they are ours, monotonic

    def ring(self) -> None:
        """Tell that messages came."""
        if self._host.has_answers:
            self._rung.set()

    def claim_until(self, stopping: threading.Event) -> None:
        """Claim commands until stopped."""
        while not stopping.is_set():
            try:
                self.claim(CLAIM_S)
            except HeadwaterError:  # the registry is away; its own log says why
                stopping.wait(AWAY_S)

    def word_until(self, stopping: threading.Event) -> None:
        """Word what was claimed and tell what was answered until stopped."""
        while not stopping.is_set():
            self._rung.wait(LOOK_S)
            self._rung.clear()
            try:
                self.word()
            except HeadwaterError as error:
                log.warning("commands_not_reported", code=error.code, detail=error.detail)
                stopping.wait(AWAY_S)

    def claim(self, wait_s: float) -> None:
        """Claim commands once. Raises HeadwaterError."""
        until_s = time.monotonic() + KEPT_S
        asked = {"protocol": self._protocol, "limit": AT_ONCE, "wait": wait_s}
        found = self._registry.call("POST", "/internal/commands:claim", asked)["commands"]
        with self._lock:
            self._orders |= {each["id"]: (until_s, _order(each)) for each in found}
        if found:
            self._rung.set()

    def word(self) -> None:
        """Word once what can be, and report. Raises HeadwaterError: it is reported the next time."""
        now_s = time.monotonic()
        with self._lock:
            self._orders = {id_: each for id_, each in self._orders.items() if each[0] > now_s}
            waiting = [order for _, order in self._orders.values()]
        with self._hold():
            reports = [report for order in waiting if (report := _report(order, self._host.word(order))) is not None]
            reports += [_told(answer) for answer in self._host.answers()]
        for start in range(0, len(reports), AT_ONCE):
            self._tell(reports[start : start + AT_ONCE])

    def _tell(self, reports: list[dict[str, Any]]) -> None:
        self._registry.call("POST", "/internal/commands:report", {"protocol": self._protocol, "reports": reports})
        with self._lock:
            for each in reports:
                self._orders.pop(each["id"], None)
        with self._hold():
            self._host.forget([each["id"] for each in reports if "publish" not in each])


def _order(claimed: dict[str, Any]) -> Order:
    same = ("id", "device", "tenant", "gateway", "names", "name", "params", "attempt")
    deadline_ns = clock.parse_rfc3339(claimed["deadline"])[0]
    return Order(**{name: claimed[name] for name in same}, deadline_ns=deadline_ns)


def _report(order: Order, outcome: Worded | Answer | None) -> dict[str, Any] | None:
    if outcome is None or isinstance(outcome, Answer):
        return None if outcome is None else _told(outcome)
    form = {"topic": outcome.topic, "payload": b64encode(outcome.payload).decode(), "qos": outcome.qos}
    whose = {"id": order.id, "device": order.device, "attempt": order.attempt}
    return whose | {"retry_s": outcome.retry_s, "publish": form}


def _told(answer: Answer) -> dict[str, Any]:
    ended = {"state": "succeeded", "result": answer.result} if answer.error is None else {"state": "failed"}
    error = {} if answer.error is None else {"error": answer.error[:1_000]}
    return {"id": answer.id, "device": answer.device} | ended | error
