"""How long a reading takes from being published to being found by a query, again and again, over both doors.

recovery = seconds from the end of a fault until that time is below twice its baseline again, over MQTT and HTTP. The
baseline counts as at least FLOOR_S: on a crowded machine single polls take longer than a fast baseline's double.
"""

from __future__ import annotations

import json
import threading
import time
from statistics import quantiles
from typing import Any, NamedTuple

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.checker.api import BROKEN, Door

FLOOR_S = 0.15
RECENT = 20
POLL_S = 0.02
PAUSE_S = 0.15
GIVE_UP_S = 60.0
LOST_S = 5.0  # what has not appeared by then may have been forgotten by a killed broker: the next one is as good


class Sample(NamedTuple):
    """A reading's way: when it was published and when it was found (monotonic seconds)."""

    begun_s: float
    found_s: float

    @property
    def took_s(self) -> float:
        return self.found_s - self.begun_s


class Probe:
    """Measures in threads of its own until closed. What a probe sends is no part of the history."""

    def __init__(self, door: Door, mqtt: tuple[str, int], name: str = "probe") -> None:
        self._door = door
        self._closing = threading.Event()
        self.samples: dict[str, list[Sample]] = {"mqtt": [], "http": []}
        mqtt_credential, http_credential = door.register(f"{name}-mqtt"), door.register(f"{name}-http")
        self._own = Door(f"http://{door.address}", http_credential["bearer"], timeout_s=2.0)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"{name}-mqtt")
        self._client.username_pw_set(f"{name}-mqtt", mqtt_credential["secret"])
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async(*mqtt, keepalive=10)
        self._client.loop_start()
        self._names = {"mqtt": f"{name}-mqtt", "http": f"{name}-http"}
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True) for kind in self.samples]
        for thread in self._threads:
            thread.start()

    def baseline_s(self, count: int = 5, within_s: float = 30.0) -> dict[str, float]:
        """Wait for some samples of each door and give the median of the last ones: a crowded machine moves it."""
        deadline_s = time.monotonic() + within_s
        while any(len(samples) < count for samples in self.samples.values()):
            assert time.monotonic() < deadline_s, f"the probe sees nothing: {self.samples}"
            time.sleep(POLL_S)
        found = {
            kind: sorted(each.took_s for each in list(samples)[-RECENT:]) for kind, samples in self.samples.items()
        }
        return {kind: max(FLOOR_S, times[len(times) // 2]) for kind, times in found.items()}

    def recovered(self, end_s: float, baseline_s: dict[str, float]) -> float | None:
        """Seconds from `end_s` until both doors were quick again; None: not yet."""
        latest = 0.0
        for kind, samples in self.samples.items():
            good = (each for each in list(samples) if each.begun_s >= end_s and each.took_s < 2 * baseline_s[kind])
            first = next(good, None)
            if first is None:
                return None
            latest = max(latest, first.found_s - end_s)
        return latest

    def wait_recovered(self, end_s: float, baseline_s: dict[str, float], within_s: float = GIVE_UP_S) -> float:
        while (took_s := self.recovered(end_s, baseline_s)) is None:
            assert time.monotonic() < end_s + within_s, f"not recovered {within_s} s after the fault"
            time.sleep(POLL_S)
        return took_s

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(GIVE_UP_S)
        self._own.close()
        self._client.disconnect()
        self._client.loop_stop()

    def _run(self, kind: str) -> None:
        number = 0
        while not self._closing.wait(PAUSE_S):
            number += 1
            begun_s = time.monotonic()
            if self._publish(kind, number) and self._appears(self._names[kind], number):
                self.samples[kind].append(Sample(begun_s, time.monotonic()))

    def _publish(self, kind: str, number: int) -> bool:
        content = json.dumps({"n": number}).encode()
        if kind == "mqtt":
            self._client.publish(f"devices/{self._names['mqtt']}/telemetry", content, 1)
            return True
        while not self._closing.is_set():
            try:
                if self._own.call("POST", "/v1/telemetry", content)[0] == 202:
                    return True
            except BROKEN:
                pass
            self._closing.wait(POLL_S)
        return False

    def _appears(self, name: str, number: int) -> bool:
        deadline_s = time.monotonic() + LOST_S
        while not self._closing.is_set() and time.monotonic() < deadline_s:
            if self._latest(name) >= number:
                return True
            self._closing.wait(POLL_S)
        return False

    def _latest(self, name: str) -> float:
        try:
            status, body, _ = self._door.call("GET", f"/v1/query/latest?device={name}")
        except BROKEN:
            return 0
        points: list[dict[str, Any]] = json.loads(body)["points"] if status == 200 else []
        return max((point["fields"].get("n", 0) for point in points), default=0)


def percentile(values: list[float], which: int) -> float:
    return quantiles(values, n=100, method="inclusive")[which - 1] if len(values) > 1 else sum(values)
