"""The bridge as a Sparkplug host application: says that it is online, and by its will that it is not (3.0, s. 4.3).

Edge nodes that wait for a primary host keep their data while it is offline. The will is part of connecting, and a birth
carries the time of its will, so a new time needs a new connection. Knows no MQTT client.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import orjson

from wire import clock
from wire.protocols import HOST_STATES

AGAIN_S, SAYINGS = 3.0, 2  # the first time the broker may not know yet who may say it, and who may hear it
ANEW_S = (
    30.0  # how often a connection is given up for a newer time: two hosts of one id must not do it in turn for ever
)


class HostState:
    """What one bridge says of one host id; an empty id: nothing. Times are ms since the epoch."""

    def __init__(self, host: str, now_s: Callable[[], float] = time.monotonic) -> None:
        self.topic = HOST_STATES.replace("+", host)
        self._host = host
        self._now_s = now_s
        self._time_ms = 0
        self._next_anew_s = 0.0
        self._due_s, self._left = math.inf, 0
        self.is_willed = False  # on the connection that is, or is being made
        self.is_outdated = False  # its will: another one needs another connection

    def will(self, *, is_wanted: bool) -> bytes | None:
        """Give the will of a connection that is about to be made; None: it has none."""
        self.is_willed, self.is_outdated = is_wanted and bool(self._host), False
        if not self.is_willed:
            return None
        self._due_s, self._left = 0.0, SAYINGS
        self._time_ms = max(clock.now_ns() // clock.NS_PER_MS, self._time_ms + 1)
        return self.say(is_online=False)

    def want(self, *, is_wanted: bool) -> None:
        """Note whether a will is wanted."""
        self.is_outdated = bool(self._host) and is_wanted != self.is_willed

    def say(self, *, is_online: bool) -> bytes:
        """Give the state, of the time of this connection's will."""
        return orjson.dumps({"online": is_online, "timestamp": self._time_ms})

    def is_due(self) -> bool:
        """Tell whether it is to be said now that we are online; that it is said then is taken for granted."""
        if not self.is_willed or self._now_s() < self._due_s:
            return False
        self._left = max(0, self._left - 1)
        self._due_s = self._now_s() + AGAIN_S if self._left else math.inf
        return True

    def settle(self, *, is_refused: bool) -> None:
        """Take the broker's answer: it may not have read its access list anew yet (MQTT 3.1.1 does not tell)."""
        if is_refused:
            self._due_s = self._now_s() + AGAIN_S

    def hear(self, payload: bytes) -> None:
        """Take a state of the own id: when somebody says that we are offline, ours is said again.

        What was said at a later time than ours needs a later will.
        """
        told = _read(payload)
        if not self.is_willed or told is None:
            return
        if told <= self._time_ms or self._now_s() < self._next_anew_s:
            self._due_s = 0.0
            return
        self._time_ms, self._next_anew_s, self.is_outdated = told, self._now_s() + ANEW_S, True


def _read(payload: bytes) -> int | None:
    """Give the time of an offline state; None: it is another one, or none."""
    try:
        told = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict) or told.get("online") is not False:
        return None
    time_ms = told.get("timestamp")
    return time_ms if isinstance(time_ms, int) and 0 <= time_ms <= clock.MAX_NS // clock.NS_PER_MS else 0
