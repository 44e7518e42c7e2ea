"""Devices of the checker: they keep what was not acknowledged and send it again. paho for MQTT, http.client for HTTP.

Every second device sends no time of its own, so that a reading stored twice shows as a second row; all number their
readings with boot_id and seq.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.checker.api import BROKEN, Door
from tests.faults.checker.history import History, Key

TICK_S = 0.05
INFLIGHT = 500  # un-acknowledged at most, before a device waits: what a small device can keep
AGAIN_S = 0.2
CONFIRMED_S = 12.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Device:
    """Numbers readings and writes them down; `clock_ms` is None for a device without a clock."""

    def __init__(self, name: str, history: History, clock_ms: Callable[[], int] | None) -> None:
        self.name = name
        self.boot = f"boot-{time.time_ns():x}"
        self._history = history
        self._clock_ms = clock_ms
        self._seq = 0
        self._last_ms = 0

    def next(self, count: int) -> list[tuple[Key, bytes]]:
        """Make the next readings; they are in the history before they are given."""
        keys = [Key(self.name, self.boot, self._seq + number) for number in range(count)]
        self._seq += count
        time_ms = 0
        if self._clock_ms is not None:
            time_ms = self._last_ms = max(self._clock_ms(), self._last_ms + 1)
            self._last_ms += count - 1  # a device never uses a time twice
        self._history.sent(keys, time_ms)
        return [(key, _encode(key, time_ms + number if time_ms else 0)) for number, key in enumerate(keys)]


def _encode(key: Key, time_ms: int) -> bytes:
    values = {"b": key.boot, "n": key.seq, "v": key.value}
    head = {"boot_id": key.boot, "seq": key.seq} | ({"ts": time_ms} if time_ms else {})
    return json.dumps(head | {"values": values} if time_ms else head | values).encode()


class MqttDevice:
    """A durable MQTT session, QoS 1. paho keeps what has no PUBACK and sends it again when it is back.

    A PUBACK is the broker's word, and a killed broker forgets up to 100 of those (docs/delivery.md). So the device keeps
    a reading until the retained `acks` topic covers it, and `repair` sends again what is not covered.
    """

    def __init__(self, device: Device, address: tuple[str, int], secret: str, history: History) -> None:
        self._device, self._history = device, history
        self._topic = f"devices/{device.name}/telemetry"
        self._answered: deque[int] = deque()  # mids; filled under paho's mutex, so no lock of ours is taken there
        self._waiting: dict[int, Key] = {}
        self._kept: dict[Key, bytes] = {}
        self._heard: deque[bytes] = deque(maxlen=1)  # the last message on the acks topic
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=device.name, clean_session=False, reconnect_on_failure=True
        )
        self._client.username_pw_set(device.name, secret)
        self._client.max_inflight_messages_set(200)
        self._client.reconnect_delay_set(1, 2)
        self._client.on_publish = lambda _client, _data, mid, _reason, _properties: self._answered.append(mid)
        self._client.on_connect = lambda client, *_: client.subscribe(f"devices/{device.name}/acks", 1)
        self._client.on_message = lambda _client, _data, message: self._heard.append(message.payload)
        self._client.connect_async(*address, keepalive=10)
        self._client.loop_start()

    @property
    def is_connected(self) -> bool:
        return bool(self._client.is_connected())

    def waiting(self) -> int:
        """Settle what was answered, and tell how many are not acknowledged yet."""
        self._forget_covered()
        done = []
        for _ in range(len(self._answered)):
            mid = self._answered.popleft()
            if mid in self._waiting:
                done.append(self._waiting.pop(mid))
        self._history.acked(done)
        return len(self._waiting)

    def send(self, count: int) -> None:
        if self.waiting() > INFLIGHT:
            return
        for key, payload in self._device.next(count):
            self._kept[key] = payload
            self._publish(key, payload)

    def kept(self) -> int:
        """Tell how many the platform has not confirmed."""
        self._forget_covered()
        return len(self._kept)

    def repair(self) -> None:
        """Send again what the platform has not confirmed."""
        for key, payload in self._kept.items():
            self._publish(key, payload)

    def _publish(self, key: Key, payload: bytes) -> None:
        self._waiting[self._client.publish(self._topic, payload, 1).mid] = key

    def _forget_covered(self) -> None:
        if self._heard:
            said = json.loads(self._heard.pop())
            boots = [boot for boot in (said, *said["earlier"]) if boot["boot_id"] == self._device.boot]
            self._kept = {key: payload for key, payload in self._kept.items() if not _covers(boots, key.seq)}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _covers(boots: list[dict[str, Any]], seq: int) -> bool:
    """Tell whether the acks topic says that a number is durable."""
    return any(
        boot["first"] <= seq <= boot["newest"] and not any(low <= seq <= high for low, high in boot["missing"])
        for boot in boots
    )


class HttpDevice:
    """Posts arrays, one at a time, the same body again until it is answered 202."""

    def __init__(self, device: Device, door: Door, history: History, statuses: Counter[int]) -> None:
        self._device, self._door, self._history = device, door, history
        self._statuses = statuses
        self._pending: tuple[list[Key], bytes] | None = None
        self.faults: list[str] = []
        self.again_s = 0.0  # how long to wait before the next try: as the last answer asks for
        self.refused_again = 0  # answers 429 to a try after another one
        self._was_refused = False

    def close(self) -> None:
        self._door.close()

    def turn(self, count: int) -> bool:
        """Send the next readings, or those that are not acknowledged yet; tell whether nothing is left waiting."""
        if self._pending is None:
            made = self._device.next(count)
            self._pending = [key for key, _ in made], b"[" + b",".join(payload for _, payload in made) + b"]"
        keys, body = self._pending
        self.again_s = AGAIN_S
        try:
            status, answer, headers = self._door.call("POST", "/v1/telemetry", body)
        except BROKEN:
            status, answer, headers = 0, b"", {}
        self._statuses[status] += 1
        self.refused_again += self._was_refused and status == 429
        self._was_refused = status == 429
        if status == 202:
            assert json.loads(answer)["accepted"] == len(keys), answer
            self._history.acked(keys)
            self._pending = None
        elif status in (429, 503):
            self.again_s = float(headers.get("Retry-After", 0))
            if not self.again_s:
                self.faults.append(f"{status} without Retry-After: {answer!r}")
        elif status not in (0, 502, 504):
            self.faults.append(f"{status}: {answer!r}")
        return self._pending is None


class Load:
    """Devices on both transports at a steady rate, until `finish`."""

    def __init__(self, history: History, door: Door, mqtt: tuple[str, int]) -> None:
        self.history = history
        self.statuses: Counter[int] = Counter()
        self.obeys = False  # whether devices over HTTP wait for as long as they are told to, instead of trying at once
        self.repairs = False  # whether `finish` has the devices send again what the platform did not confirm
        self._door, self._mqtt = door, mqtt
        self._mqtt_devices: list[MqttDevice] = []
        self._http_devices: list[HttpDevice] = []
        self._stopping, self._finishing = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    def add(
        self, prefix: str, *, mqtt: int, http: int, clock_ms: Callable[[], int] = now_ms, device_type: str | None = None
    ) -> Load:
        for number in range(mqtt + http):
            name = f"{prefix}-{number}"
            credential = self._door.register(name, type=device_type)
            device = Device(name, self.history, clock_ms if number % 2 else None)
            if number < mqtt:
                self._mqtt_devices.append(MqttDevice(device, self._mqtt, credential["secret"], self.history))
            else:
                door = Door(f"http://{self._door.address}", credential["bearer"])
                self._http_devices.append(HttpDevice(device, door, self.history, self.statuses))
        return self

    def start(self, per_tick: int = 1) -> Load:
        """Send `per_tick` readings a device and TICK_S."""
        targets = [lambda: self._publish(per_tick)] if self._mqtt_devices else []
        targets += [lambda each=each: self._post(each, per_tick) for each in self._http_devices]  # type: ignore[misc]
        for target in targets:
            thread = threading.Thread(target=target, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    @property
    def refused_again(self) -> int:
        """Posts that were refused although their device had waited as it was told (when it obeys)."""
        return sum(device.refused_again for device in self._http_devices)

    @property
    def is_connected(self) -> bool:
        return all(device.is_connected for device in self._mqtt_devices)

    def waiting(self) -> int:
        """Messages without a PUBACK."""
        return sum(device.waiting() for device in self._mqtt_devices)

    def publish(self, count: int) -> None:
        """Send so many over each MQTT device, beside or instead of the steady rate."""
        for device in self._mqtt_devices:
            device.send(count)

    def repair(self, within_s: float = 90.0) -> int:
        """Wait until the platform has confirmed all MQTT readings by itself, sending again what it does not confirm each
        12 s (its topic speaks at least each 10 s while there is news); give how many were sent again.
        """
        repaired, deadline_s = 0, time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            again_s = time.monotonic() + CONFIRMED_S
            while (left := sum(device.kept() for device in self._mqtt_devices)) and time.monotonic() < again_s:
                time.sleep(TICK_S)
            if not left:
                return repaired
            repaired += left
            for device in self._mqtt_devices:
                device.repair()
        raise AssertionError(f"{left} readings were never confirmed")

    def finish(self, within_s: float = 60.0) -> None:
        """Begin nothing new, wait until everything begun is acknowledged."""
        self._finishing.set()
        deadline_s = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.1, deadline_s - time.monotonic()))
        while (left := self.waiting()) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        if self.repairs:
            self.history.note(f"sent again {self.repair()}")
        self._stopping.set()
        for device in (*self._mqtt_devices, *self._http_devices):
            device.close()
        faults = [fault for device in self._http_devices for fault in device.faults]
        assert not faults, faults[:5]
        assert not left, f"{left} messages were not acknowledged within {within_s} s"
        assert not any(thread.is_alive() for thread in self._threads), "a post was not answered in time"

    def abandon(self) -> None:
        """End at once what `finish` has not ended: a test that failed must not go on sending beside the next."""
        if self._stopping.is_set():
            return
        self._finishing.set()
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        for device in (*self._mqtt_devices, *self._http_devices):
            device.close()

    def _publish(self, per_tick: int) -> None:
        while not self._finishing.wait(TICK_S):
            self.publish(per_tick)

    def _post(self, device: HttpDevice, per_tick: int) -> None:
        is_done = True
        while not (self._stopping.is_set() or (self._finishing.is_set() and is_done)):
            is_done = device.turn(per_tick)
            again_s = device.again_s if self.obeys else AGAIN_S
            self._finishing.wait(TICK_S) if is_done else self._stopping.wait(again_s)
