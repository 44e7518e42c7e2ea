"""Keeper of presence: applies evidence to the stored marks, and looks for silence. Knows no broker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from devices import metrics
from devices.presence import state as presence
from devices.presence.state import Evidence, Mark
from wire import clock
from wire.clock import NS_PER_S

BEAT_S = 5.0  # how often "alive" is noted; the broker keeps its news for 20 s (mosquitto 2.0.11, measured)
OVERDUE_S = 2.0  # how often connected devices are looked at that their types expect to hear more of; and all counted
TRUSTED_GAP_NS = 14 * NS_PER_S  # 20 s less a beat and a margin
RETURN_NS = 60 * NS_PER_S  # how long devices may take to come back after the platform was away
SHORT_NS = 10 * NS_PER_S  # a bridge that is away for less delays what it carries and hides nothing
LEFT_NS = 600 * NS_PER_S  # one that is away for longer may have been taken away: it excuses no silence any more


class Marks(Protocol):
    """Where marks are kept; see `devices.presence.store.PresenceStore`."""

    def change(self, ids: Sequence[str], judge: Callable[[str, Mark], Mark]) -> None: ...
    def excuse(self, start_ns: int, return_ns: int) -> None: ...
    def unconfirm(self) -> None: ...
    def disconnect_all(self, judge: Callable[[str, Mark], Mark]) -> None: ...
    def silence(self, limit_s: Callable[[float | None], float], now_ns: int) -> int: ...
    def overdue(self, limit_s: Callable[[float | None], float], now_ns: int) -> int: ...
    def beat(self) -> None: ...
    def last_beat_ns(self) -> int: ...
    def counts(self) -> tuple[int, int]: ...


class Keeper:
    """Keeps presence. `see` may be called by any thread and process, the rest by the one that hosts presence."""

    def __init__(
        self, marks: Marks, silence_s: float, on_connect: Callable[[Mapping[str, int]], None] | None = None
    ) -> None:
        """`on_connect` is told who connected to the broker, and when."""
        self._marks = marks
        self._silence_s = silence_s
        self._on_connect = on_connect
        self._beat_at_s = self._overdue_at_s = 0.0
        self._bridges_away: dict[str, int] = {}  # since when
        self._carried_ns = 0  # newest message that a bridge carried, as far as this process was told
        self.arrived: Callable[[Sequence[str]], None] = lambda _ids: None  # told who came to the broker

    def see(self, seen_ns: Mapping[str, int], *, by_mqtt: bool = False) -> None:
        """Take arrival times of telemetry; `by_mqtt` = all of it came through the bridge."""
        now_ns = clock.now_ns()
        if by_mqtt:
            self._carried_ns = max([self._carried_ns, *seen_ns.values()])
        kind: presence.Kind = "seen_mqtt" if by_mqtt else "seen"
        self.apply([Evidence(kind, device, min(at_ns, now_ns)) for device, at_ns in seen_ns.items() if at_ns > 0])

    def hear(self, told: Mapping[str, tuple[bool, int]]) -> None:
        """Take what gateways say of their children: whether each is online, and when that was said."""
        now_ns, words = clock.now_ns(), ("offline", "online")
        said = ((device, min(at_ns, now_ns), words[is_online]) for device, (is_online, at_ns) in told.items())
        self.apply([Evidence("said", *each) for each in said])

    def note_spoke(self, devices: Iterable[str]) -> None:
        """Take devices that said something of twins or commands over MQTT."""
        now_ns = clock.now_ns()
        self.apply([Evidence("spoke", device, now_ns) for device in devices])

    def apply(self, evidence: Sequence[Evidence]) -> None:
        """Apply evidence in its order; of devices that are not registered, it is ignored."""
        heard: dict[str, list[Evidence]] = {}
        for piece in evidence:
            heard.setdefault(piece.device, []).append(piece)
            metrics.EVIDENCE.labels(piece.kind).inc()

        def judge(device_id: str, mark: Mark) -> Mark:
            for piece in heard[device_id]:
                mark = presence.judge(mark, piece)
            return mark

        if heard:
            self._marks.change(list(heard), judge)
        came = [piece.device for piece in evidence if piece.kind == "connected" or piece.word == "online"]
        if came:
            self.arrived(list(dict.fromkeys(came)))
        connected = {piece.device: piece.time_ns for piece in evidence if piece.kind == "connected"}
        if connected and self._on_connect is not None:
            self._on_connect(connected)

    def resume(self, *, has_session: bool) -> None:
        """Begin to hear from the broker: who was connected still is, unless news may have been missed."""
        if not has_session or clock.now_ns() - self._marks.last_beat_ns() > TRUSTED_GAP_NS:
            self._excuse(self._marks.last_beat_ns())
            self._marks.unconfirm()

    def restart(self) -> None:
        """Take all connected devices for gone: the broker was started anew."""
        self._excuse(self._marks.last_beat_ns())
        now_ns = clock.now_ns()
        self._marks.disconnect_all(lambda key, mark: presence.judge(mark, Evidence("disconnected", key, now_ns)))

    def note_bridge(self, name: str, at_ns: int, *, is_here: bool) -> None:
        """Take the news that a bridge came to the broker or went: meanwhile no device can say much.

        One that was taken away and is set up again much later excuses nothing, if others carried on without it.
        """
        if not is_here:
            self._bridges_away.setdefault(name, at_ns)
            return
        gone_ns = self._bridges_away.pop(name, at_ns)
        was_missed = at_ns - gone_ns <= LEFT_NS or self._carried_ns <= gone_ns + presence.MQTT_GRACE_NS
        if at_ns - gone_ns > SHORT_NS and was_missed:
            self._excuse(gone_ns)

    def _misses_a_bridge(self, now_ns: int) -> bool:
        return any(now_ns - gone_ns <= LEFT_NS for gone_ns in self._bridges_away.values())

    def _excuse(self, start_ns: int) -> None:
        if 0 < start_ns < clock.now_ns():
            self._marks.excuse(start_ns, RETURN_NS)

    def look(self, *, hears: bool) -> None:
        """Look for silent devices; `hears` says that the broker's news are complete up to now."""
        now_ns = clock.now_ns()
        self._marks.silence(lambda interval_s: presence.silence_limit_s(interval_s, self._silence_s), now_ns)
        if time.monotonic() >= self._overdue_at_s:
            self._overdue_at_s = time.monotonic() + OVERDUE_S
            if hears and not self._misses_a_bridge(now_ns):
                self._marks.overdue(lambda interval_s: presence.silence_limit_s(interval_s, math.inf), now_ns)
            self._count()
        if hears and time.monotonic() - self._beat_at_s >= BEAT_S:
            self._marks.beat()
            self._beat_at_s = time.monotonic()

    def _count(self) -> None:
        registered, online = self._marks.counts()
        metrics.DEVICES.set(registered)
        metrics.ONLINE.set(online)
