"""Fan-out of the feed: who subscribed to what, and what each viewer still has to be sent. Knows no socket, no Flask.

A viewer that keeps up gets every point. One that falls behind gets, per (device, measurement, field), the newest
value only, so that its backlog is bounded by the fleet and not by time. One that takes nothing at all is given up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from chassis.delays import DelayHistogram
from chassis.metrics import Counter, Gauge
from wire.devices import TENANT
from wire.feed import MAX_FRAME_BYTES, Subscription

MAX_QUEUED = 2_000  # points kept one by one for a viewer; more are conflated
MAX_QUEUED_BYTES = 1024 * 1024  # of these as JSON, whatever their size: about three times that in memory
MAX_CONFLATED_BYTES = 10 * 1024 * 1024  # kept of (device, measurement, field) for a viewer; more is given up
VALUE_BYTES = 200  # what such a value costs besides its text: name, time, and the places of all three
NAMED_BYTES = 370  # what a device costs that a viewer named itself, and
FOLLOWED_BYTES = 180  # what each costs that it sees: both measured; queries share the names they find
MAX_HELD_BYTES = 128 * 1024 * 1024  # for all viewers together: beyond it the one who holds most is given up
HELD_LOOK_S = 0.25  # how often that is looked at; at most some MB come meanwhile
MAX_STALL_S = 20.0  # how long a viewer may take nothing at all
DELAYS_FRESH_S = 10.0  # the writer tells its percentiles each 2 s
PERCENTILES = ("p50", "p95", "p99")
RATE_SLOTS = 300  # seconds of the feed's rate that pages can show

VIEWERS = Gauge("headwater_feed_viewers", "Open websocket readers", multiprocess_mode="livesum")
POINTS = Counter("headwater_feed_points", "Points received from the feed")
BAD = Counter("headwater_feed_bad_messages", "Feed messages that do not parse")
CONFLATED = Counter("headwater_feed_conflated", "Values that a newer one replaced before a slow viewer took them")
TOO_BIG = Counter("headwater_feed_too_big", "Values left out of the feed because no frame could hold them")
GIVEN_UP = Counter("headwater_feed_given_up", "Viewers closed because they were too slow")
SENT = DelayHistogram("headwater_feed_sent_delay_seconds", "From the receipt of a reading until its frame was sent")

_HEAD, _TAIL = b'{"points":[', b"]}"
_ROOM = MAX_FRAME_BYTES - len(_HEAD) - len(_TAIL)
PointJson = dict[str, Any]
Key = tuple[str, str, tuple[tuple[str, str], ...]]  # device, measurement, tags: one series


class Item:
    """A point of the feed, encoded once for all viewers that take the whole of it."""

    __slots__ = ("_pieces", "oldest", "point")

    def __init__(self, point: PointJson, oldest: Mapping[str, int]) -> None:
        self.point = point
        self.oldest = oldest  # of the feed message it came in: class of message -> receipt of the oldest point, ns
        self._pieces: list[bytes] = []

    def pieces(self) -> list[bytes]:
        """Give the point as JSON, in more than one piece when it would not fit a frame."""
        if not self._pieces:
            self._pieces = encode(self.point)
        return self._pieces

    @property
    def size_bytes(self) -> int:
        """Bytes of the point as JSON."""
        return sum(map(len, self.pieces()))


def encode(point: PointJson) -> list[bytes]:
    """Encode a point so that every piece fits a frame: too large a one is split by its fields.

    A single value that fits no frame is left out and counted: the queries still give it.
    """
    encoded = orjson.dumps(point)
    if len(encoded) < _ROOM:
        return [encoded]
    names = list(point["fields"])
    if len(names) <= 1:
        TOO_BIG.inc()
        return []
    middle = len(names) // 2
    halves = ({name: point["fields"][name] for name in part} for part in (names[:middle], names[middle:]))
    return [piece for half in halves for piece in encode(point | {"fields": half})]


class Viewer:
    """What one reader of a tenant subscribed to and has not been sent. Safe for one producer and one sender."""

    def __init__(self, subscription: Subscription, tenant: str = TENANT, scope: str = "") -> None:
        self.tenant, self.scope = tenant, scope
        self.waiting = threading.Event()  # set: there is something to send, or nothing ever again
        self.is_given_up = False
        self.query = subscription.query.strip()
        self.named = frozenset(subscription.devices)
        self.is_following = bool(self.query or scope)  # of the devices, what these find
        self.devices = frozenset[str]() if self.is_following else self.named  # the hub changes it, see `Hub.narrow`
        self.fields: frozenset[str] = frozenset(subscription.fields)
        self._lock = threading.Lock()  # guards everything below
        self._queue: deque[Item] = deque()
        self._queued_bytes = 0
        self._newest: dict[Key, dict[str, tuple[str, Any]]] = {}  # key -> field -> (time, value), when behind
        self._newest_size = self._newest_bytes = 0
        self._encoded: deque[bytes] = deque()  # pieces of the point that is being sent
        self._oldest: dict[str, int] = {}  # of what was taken and not yet noted as sent
        self._taken_s: float | None = None  # when the sender took a frame that it may still be busy with

    def offer(self, items: Iterable[Item], now_s: float) -> None:
        """Add points; the viewer has already been found to want their devices."""
        with self._lock:
            if self.is_given_up:
                return
            for item in items:
                self._add(item)
            is_stalled = self._taken_s is not None and now_s - self._taken_s > MAX_STALL_S
            if is_stalled or self._newest_bytes > MAX_CONFLATED_BYTES:
                self._give_up()
            elif self._queue or self._newest:
                self.waiting.set()

    def take_frame(self, now_s: float) -> bytes | None:
        """Give the next frame of at most MAX_FRAME_BYTES; None when all is sent.

        The sender calls it again only after the frame went out; the time between is what counts as stalled.
        """
        with self._lock:
            chunks = self._take_chunks()
            if chunks:
                self._taken_s = now_s
                return _HEAD + b",".join(chunks) + _TAIL
            self._taken_s = None
            if not self.is_given_up:
                self.waiting.clear()
            return None

    def note_sent(self, now_ns: int) -> None:
        """Count how old the oldest points were of the frame that has just gone out; conflated ones do not count."""
        with self._lock:
            oldest, self._oldest = self._oldest, {}
        for kind, received_ns in oldest.items():
            SENT.add(kind, [received_ns], now_ns)

    def backlog(self) -> int:
        """Tell how many points or conflated values wait."""
        with self._lock:
            return len(self._queue) + self._newest_size

    def held_bytes(self) -> int:
        """Tell how much memory this viewer costs, roughly: what waits for it, and the devices it asked for."""
        asked = 0 if self.is_given_up else len(self.named) * NAMED_BYTES + len(self.devices) * FOLLOWED_BYTES
        with self._lock:
            return self._queued_bytes + self._newest_bytes + asked

    def give_up(self) -> None:
        """Let go of all that waits: the sender closes the connection."""
        with self._lock:
            self._give_up()

    def _add(self, item: Item) -> None:
        if self.fields:
            kept = {name: value for name, value in item.point["fields"].items() if name in self.fields}
            if not kept:
                return
            if len(kept) < len(item.point["fields"]):
                item = Item(item.point | {"fields": kept}, item.oldest)
        if self._newest:
            self._conflate(item.point)
            return
        self._queue.append(item)
        self._queued_bytes += item.size_bytes
        if len(self._queue) > MAX_QUEUED or self._queued_bytes > MAX_QUEUED_BYTES:
            for queued in self._queue:
                self._conflate(queued.point)
            self._queue.clear()
            self._queued_bytes = 0

    def _conflate(self, point: PointJson) -> None:
        key = (point["device"], point["measurement"], tuple(sorted((point.get("tags") or {}).items())))
        newest = self._newest.get(key)
        if newest is None:
            newest = self._newest[key] = {}
            self._newest_bytes += _weigh_key(key)
        for name, value in point["fields"].items():
            known = newest.get(name)
            if known is None:
                self._newest_size += 1
            else:
                CONFLATED.inc()
            # RFC 3339 in UTC with nine digits: text order is time order. A late value never replaces a newer one.
            if known is None or known[0] <= point["time"]:
                newest[name] = (point["time"], value)
                self._newest_bytes += _weigh(value) - (_weigh(known[1]) if known else 0)

    def _take_chunks(self) -> list[bytes]:
        chunks: list[bytes] = []
        room = _ROOM
        while self._encoded or self._encode_next():
            room -= len(self._encoded[0]) + 1
            if room < 0:
                break
            chunks.append(self._encoded.popleft())
        return chunks

    def _encode_next(self) -> bool:
        """Encode the next point that waits; the newest values in turn, so that no device starves."""
        while not self._encoded and (self._newest or self._queue):
            if not self._newest:
                item = self._queue.popleft()
                self._queued_bytes -= item.size_bytes
                self._encoded.extend(item.pieces())
                for kind, received_ns in item.oldest.items():
                    self._oldest[kind] = min(received_ns, self._oldest.get(kind, received_ns))
                continue
            key = next(iter(self._newest))
            fields = self._newest.pop(key)
            self._newest_size -= len(fields)
            self._newest_bytes -= _weigh_key(key) + sum(_weigh(value) for _, value in fields.values())
            for point in _points_of(key, fields):
                self._encoded.extend(encode(point))
        return bool(self._encoded)

    def _give_up(self) -> None:
        self.is_given_up = True
        self._queue.clear()
        self._newest.clear()
        self._encoded.clear()
        self._newest_size = self._newest_bytes = self._queued_bytes = 0
        self.waiting.set()
        GIVEN_UP.inc()


class Hub:
    """All viewers, and the rate of what passes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._of_device: dict[tuple[str, str], set[Viewer]] = {}  # tenant, device
        self._of_all: dict[str, set[Viewer]] = {}  # by tenant
        self._began = int(time.monotonic())
        self._delays: tuple[float, Mapping[str, Mapping[str, float]]] = (-DELAYS_FRESH_S, {})
        self._looked_s = 0.0
        self._rates: dict[str, deque[tuple[int, int]]] = {}  # by tenant: (second of time.monotonic, points in it)

    def join(self, viewer: Viewer) -> None:
        """Let a viewer take part."""
        with self._lock:
            for members in self._memberships(viewer):
                members.add(viewer)
        VIEWERS.inc()
        self._look(time.monotonic())

    def leave(self, viewer: Viewer) -> None:
        """Let a viewer go, whatever it had waiting."""
        with self._lock:
            self._leave(viewer)
        VIEWERS.dec()

    def narrow(self, viewer: Viewer, found: Iterable[str]) -> None:
        """Let a viewer that takes part see the devices that its query finds now, among those it named."""
        devices = frozenset(found) & viewer.named if viewer.named else frozenset(found)
        if devices == viewer.devices:
            return
        with self._lock:
            self._leave(viewer)
            viewer.devices = devices
            for members in self._memberships(viewer):
                members.add(viewer)

    def publish(self, message: bytes) -> None:
        """Hand the points of a feed message to whom they concern; a message that does not parse is counted."""
        try:
            parsed = orjson.loads(message)
            oldest = {str(kind): int(received_ns) for kind, received_ns in parsed.get("oldest", {}).items()}
            items = [_item(point, oldest) for point in parsed["points"]]
            self._note_delays(parsed.get("delays"))
            tenant = str(parsed.get("tenant", TENANT))
            offers = self._sort(tenant, items, int(parsed.get("stored", len(items))))
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
            BAD.inc()
            return
        POINTS.inc(len(items))
        now_s = time.monotonic()
        for viewer, wanted in offers.items():
            viewer.offer(wanted, now_s)
        self._look(now_s)

    def rates(self, tenant: str = TENANT) -> list[int]:
        """Give a tenant's points of each of the last RATE_SLOTS seconds, oldest first; less while the hub is young."""
        now = int(time.monotonic())
        with self._lock:
            known = dict(self._rates.get(tenant, ()))
        return [known.get(second, 0) for second in range(max(self._began, now - RATE_SLOTS), now)]

    def delays(self) -> Mapping[str, Mapping[str, float]]:
        """Give the percentiles to the store that the writer told last, by class; none when it is silent."""
        with self._lock:
            told_s, delays = self._delays
        return delays if time.monotonic() - told_s < DELAYS_FRESH_S else {}

    def viewers(self) -> int:
        """Tell how many viewers there are."""
        with self._lock:
            return len(self._everybody())

    def _everybody(self) -> set[Viewer]:
        return set().union(*self._of_all.values(), *self._of_device.values())

    def _look(self, now_s: float) -> None:
        """Give up those who hold most until all together fit."""
        if now_s - self._looked_s <= HELD_LOOK_S:
            return
        self._looked_s = now_s
        with self._lock:
            viewers = self._everybody()
        held = sorted((viewer.held_bytes(), id(viewer), viewer) for viewer in viewers)
        total = sum(each[0] for each in held)
        while total > MAX_HELD_BYTES:
            size, _, viewer = held.pop()
            viewer.give_up()
            total -= size

    def _note_delays(self, told: Any) -> None:
        if told is None:
            return
        delays = {str(kind): {name: float(each[name]) for name in PERCENTILES} for kind, each in told.items()}
        with self._lock:
            self._delays = (time.monotonic(), delays)

    def _leave(self, viewer: Viewer) -> None:
        for members in self._memberships(viewer):
            members.discard(viewer)
        for device in viewer.devices:
            if not self._of_device.get((viewer.tenant, device), True):
                del self._of_device[viewer.tenant, device]

    def _memberships(self, viewer: Viewer) -> list[set[Viewer]]:
        if not (viewer.devices or viewer.is_following):
            return [self._of_all.setdefault(viewer.tenant, set())]
        return [self._of_device.setdefault((viewer.tenant, device), set()) for device in viewer.devices]

    def _sort(self, tenant: str, items: list[Item], stored: int) -> Mapping[Viewer, list[Item]]:
        with self._lock:
            if stored:
                self._count(tenant, stored)
            offers: dict[Viewer, list[Item]] = dict.fromkeys(self._of_all.get(tenant, ()), items)
            if not self._of_device:
                return offers
            for item in items:
                for viewer in self._of_device.get((tenant, item.point["device"]), ()):
                    offers.setdefault(viewer, []).append(item)
            return offers

    def _count(self, tenant: str, stored: int) -> None:
        second, rates = int(time.monotonic()), self._rates.setdefault(tenant, deque(maxlen=RATE_SLOTS))
        if rates and rates[-1][0] == second:
            stored += rates.pop()[1]
        rates.append((second, stored))


def _item(point: Any, oldest: Mapping[str, int]) -> Item:
    """Take a point in after a look at it: what is no point must fail here, not in the middle of a viewer's queue."""
    names = point["device"] + point["measurement"] + point["time"]
    if not isinstance(point["fields"], dict) or not isinstance(names, str):
        raise TypeError("not a point")
    return Item(point, oldest)


def _weigh(value: Any) -> int:
    return VALUE_BYTES + (len(value) if isinstance(value, str) else 0)


def _weigh_key(key: Key) -> int:
    device, measurement, tags = key
    return VALUE_BYTES + len(device) + len(measurement) + sum(len(name) + len(value) for name, value in tags)


def _points_of(key: Key, fields: Mapping[str, tuple[str, Any]]) -> list[PointJson]:
    """Give the newest values of a series as points, those of one time together."""
    by_time: dict[str, dict[str, Any]] = {}
    for name, (moment, value) in fields.items():
        by_time.setdefault(moment, {})[name] = value
    device, measurement, tags = key
    return [
        {"device": device, "measurement": measurement, "time": moment, "tags": dict(tags), "fields": values}
        for moment, values in by_time.items()
    ]
