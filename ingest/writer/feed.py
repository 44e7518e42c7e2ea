"""What the writer publishes: the feed for dashboards (QoS 0), and acks for devices. Never makes the writer wait.

What cannot be sent in time is conflated to the newest point of each series: viewers want the present. Points that do
not move the latest value (history, retained) are no news and stay out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import orjson
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from chassis import logs
from chassis.backoff import Backoff
from chassis.metrics import Counter
from chassis.settings import split_address
from ingest.readings import Reading
from ingest.writer.acks import AckBoard
from ingest.writer.delays import STORED, by_kind
from ingest.writer.gaps import BootChange
from wire import topics
from wire.feed import MAX_FRAME_BYTES
from wire.points import point_to_json

log = logs.get(__name__)
POINTS_PER_S = 5_000  # JSON of a point costs about 5 us here and again at each dashboard
FLUSH_S = 0.02
BURST_S = 0.1  # allowance that may be saved up: conflation works on 100 ms
DELAYS_S = 2.0  # how often dashboards are told the percentiles of delays
CONNECT_TIMEOUT_S = 1.0
RETRY_FIRST_S, RETRY_MOST_S = 0.1, 2.0
KEEPALIVE_S = 30
POINTS = Counter("headwater_writer_feed_points", "Points offered to the feed, by what became of them", ["outcome"])

SeriesKey = tuple[object, ...]
Wrap = Callable[[str, list[bytes], list[Reading]], bytes]  # tenant, encoded points, points -> payload


class FeedBuffer:
    """Points on their way out: at most a burst of them as they came, beyond that the newest of each series."""

    def __init__(self, points_per_s: int = POINTS_PER_S) -> None:
        self._rate = points_per_s
        self._burst = max(1, int(points_per_s * BURST_S))
        self._allowed = float(self._burst)
        self._refilled_s: float | None = None
        self._lock = threading.Lock()  # guards _queue and _newest
        self._queue: list[Reading] = []
        self._newest: dict[SeriesKey, Reading] = {}

    def offer(self, points: Iterable[Reading]) -> None:
        """Take points; never blocks for longer than it takes to sort them in."""
        news = [point for point in points if point.moves_latest or point.is_late_news]
        with self._lock:
            room = max(0, self._burst - len(self._queue)) if not self._newest else 0
            self._queue += news[:room]
            conflated = self._conflate(news[room:])
        POINTS.labels("conflated").inc(conflated)

    def take(self, now_s: float) -> list[Reading]:
        """Give what may go out now."""
        if self._refilled_s is not None:
            self._allowed = min(self._burst, self._allowed + (now_s - self._refilled_s) * self._rate)
        self._refilled_s = now_s
        with self._lock:
            count = min(int(self._allowed), len(self._queue))
            points, self._queue = self._queue[:count], self._queue[count:]
            while self._newest and len(points) < int(self._allowed):
                points.append(self._newest.pop(next(iter(self._newest))))
        self._allowed -= len(points)
        return points

    def _conflate(self, points: list[Reading]) -> int:
        """Keep the newest of each series and set of fields; give how many fell out."""
        newest, fallen = self._newest, 0
        limit = self._rate * 10  # a fleet with more series than that shows a part of itself each round
        for point in points:
            key: SeriesKey = (point.device, point.measurement, point.tenant, point.is_late_news, *point.fields)
            if point.tags:
                key = (*key, *point.tags.items())
            known = newest.get(key)
            if known is None and len(newest) < limit:
                newest[key] = point
                continue
            fallen += 1
            if known is not None and point.time_ns >= known.time_ns:
                newest[key] = point
        return fallen


def to_messages(points: Iterable[Reading]) -> Iterator[tuple[bytes, int]]:
    """Encode points as payloads of at most MAX_FRAME_BYTES, each of one tenant and with its number of points.

    `oldest` in a payload tells when the oldest of its points was received, by class of message, in ns since the epoch.
    History that alerts are told of goes as `late`, in payloads without `points`: viewers show the newest.
    A point that is larger alone (long strings) is left out and counted.
    """
    parts: dict[tuple[str, bool], list[Reading]] = {}
    for point in points:
        parts.setdefault((point.tenant, point.is_late_news), []).append(point)
    for (tenant, is_late), mine in parts.items():
        yield from _to_messages(_wrap_late if is_late else _wrap, tenant, mine)


def _to_messages(wrap: Wrap, tenant: str, points: Iterable[Reading]) -> Iterator[tuple[bytes, int]]:
    parts: list[bytes] = []
    members: list[Reading] = []
    size = 0
    for point in points:
        part = orjson.dumps(point_to_json(point))
        if len(part) > _ROOM:
            POINTS.labels("too_large").inc()
            continue
        if size + len(part) + 1 > _ROOM:
            yield wrap(tenant, parts, members), len(parts)
            parts, members, size = [], [], 0
        parts.append(part)
        members.append(point)
        size += len(part) + 1
    if parts:
        yield wrap(tenant, parts, members), len(parts)


_ROOM = MAX_FRAME_BYTES - 2_000  # the rest is for `oldest`: some 40 bytes a class


def _wrap(tenant: str, parts: list[bytes], members: list[Reading]) -> bytes:
    oldest = {kind: min(point.received_ns for point in points) for kind, points in by_kind(members).items()}
    return b'{"tenant":%s,"oldest":%s,"points":[%s]}' % (orjson.dumps(tenant), orjson.dumps(oldest), b",".join(parts))


def _wrap_late(tenant: str, parts: list[bytes], _members: list[Reading]) -> bytes:
    return b'{"tenant":%s,"points":[],"late":[%s]}' % (orjson.dumps(tenant), b",".join(parts))


class News:
    """What was just committed, on its way to the two who want it."""

    def __init__(self, feed: FeedBuffer, acks: AckBoard) -> None:
        self.feed, self.acks = feed, acks

    def offer(self, points: Iterable[Reading]) -> None:
        """Offer points to viewers."""
        self.feed.offer(points)

    def note(self, boots: Sequence[BootChange]) -> None:
        """Note which numbers are durable now."""
        if boots:
            self.acks.note(boots, time.monotonic())

    def forget(self, devices: Iterable[str]) -> None:
        """Take back what was said of devices that are no more; their numbers are forgotten already."""
        self.acks.forget(devices, time.monotonic())


class FeedPublisher:
    """Sends a buffer, and the acks that are due, from one thread; the broker may be away for as long as it likes."""

    def __init__(self, news: News, broker: str, username: str, password: str) -> None:
        self._buffer, self._acks = news.feed, news.acks
        self._told_s = 0.0
        self._address = split_address(broker, topics.MQTT_PORT)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=username, clean_session=True)
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        if password:
            self._client.username_pw_set(username, password)

    def run(self, stopping: threading.Event) -> None:
        """Connect, publish and reconnect until stopped."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MOST_S)
        try:
            while not stopping.is_set():
                if self._serve(stopping):
                    backoff.reset()
                stopping.wait(backoff.next_s())
        finally:
            self._client.disconnect()
            self._client.loop(timeout=0)

    def _serve(self, stopping: threading.Event) -> bool:
        """Hold one connection until it breaks; tell whether it ever worked."""
        try:
            self._client.connect(*self._address, keepalive=KEEPALIVE_S)
        except OSError as error:
            log.info("feed_broker_away", error=str(error))
            self._discard()
            return False
        was_connected = False
        while not stopping.is_set() and self._client.loop(timeout=FLUSH_S) == mqtt.MQTT_ERR_SUCCESS:
            if self._client.is_connected():
                if not was_connected:
                    self._acks.renew(time.monotonic())
                was_connected = True
                self._flush()
        if not stopping.is_set():
            log.info("feed_connection_ended", was_connected=was_connected)
        return was_connected

    def _flush(self) -> None:
        if self._client.want_write():  # the broker does not read: what waits conflates meanwhile
            return
        for payload, count in to_messages(self._buffer.take(time.monotonic())):
            self._client.publish(topics.FEED, payload, qos=0)
            POINTS.labels("published").inc(count)
        if time.monotonic() - self._told_s >= DELAYS_S:
            self._told_s = time.monotonic()
            delays = {kind: recent._asdict() for kind, recent in STORED.recent().items()}
            self._client.publish(topics.FEED, orjson.dumps({"points": [], "delays": delays}), qos=0)
        for topic, payload in self._acks.take(time.monotonic()):
            self._client.publish(topic, payload, qos=1, retain=True)

    def _discard(self) -> None:
        """Nobody can see the points of an outage any more."""
        POINTS.labels("unsent").inc(len(self._buffer.take(time.monotonic())))
