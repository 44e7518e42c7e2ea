"""The verbs of media: keep a blob and its point, both durable before anybody is told so. Knows no HTTP and no SQL.

Order of keeping: the blob's file, then its entry in the list, then the point in the spool. Whatever is cut off between
two of them is not acknowledged; sent again it finds what is there already, and a file without an entry is collected.
A blob may be long on its way: whether its device may still have it is asked again at the end.
"""

from __future__ import annotations

import re
from collections import Counter as Counts
from collections.abc import Callable, Iterable
from math import ceil
from typing import NamedTuple

from chassis.metrics import Counter
from ingest.framing import Batch, Delivery, Ending, Verdict
from ingest.gate import Known
from ingest.media.blobs import Arrivals, Arrived, Blobs
from ingest.media.config import MediaConfig
from ingest.media.index import Index, Item, Room
from ingest.message import Message
from ingest.ports import Ports
from ingest.protocols import PROTOCOLS
from ingest.protocols import times as clocks
from ingest.protocols.media.decoder import channel_of, to_record
from ingest.protocols.media.pictures import PICTURES, Broken, Look, look
from ingest.rates import LIMITED, UNLIMITED, RateLimits
from ingest.readings import Reading
from ingest.service import READINGS
from wire import clock
from wire.devices import DeviceTypeSpec
from wire.errors import BadRequest, Forbidden, HeadwaterError, TooLarge, TooManyRequests, Unavailable, Unprocessable
from wire.errors import UnsupportedMedia as NotWhatItSays
from wire.media import content_path
from wire.topics import is_device_id, parse_device_topic

BLOBS = Counter("headwater_media_blobs", "Blobs that were kept, by kind", ["kind"])
BYTES = Counter("headwater_media_bytes", "Bytes of these blobs")
NAME = "media"
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
_SAYS_NOTHING = ("application/octet-stream", "application/x-www-form-urlencoded")  # what clients say by themselves
_NO_TYPE = DeviceTypeSpec()


class Sent(NamedTuple):
    """What is known of a blob beside its bytes."""

    device: Known
    channel: str
    received_ns: int
    time_ns: int | None = None
    type: str = ""  # as its sender calls it
    source: str = ""
    delivery: Delivery | None = None  # over MQTT
    session: str = ""  # of the broker, which its message ids are of

    @property
    def whose(self) -> tuple[str, str]:
        """Tenant and device."""
        return self.device.tenant, self.device.id

    @property
    def message(self) -> str:
        """What the broker calls it, should it come again; empty: it cannot."""
        return f"{self.session}/{self.delivery.mid}" if self.delivery is not None and self.delivery.mid else ""


class Bounds(NamedTuple):
    """What holds for a device: its type's own limits, else those of the installation."""

    limit_bytes: int
    room: Room
    keep_days: int | None
    keep_bytes: int | None


class _Later(Exception):  # noqa: N818 - an answer about a message
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class MediaService:
    """Keeps the media of devices. Thread-safe."""

    def __init__(
        self, config: MediaConfig, ports: Ports, index: Index, blobs: Blobs, arrivals: Arrivals,
        refuse: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        """`refuse` counts what was refused, by protocol and tenant."""
        self._config = config
        self._ports = ports
        self._index = index
        self._blobs = blobs
        self._arrivals = arrivals
        self._refuse = refuse
        self._rates = RateLimits(config.media_rate, config.media_tenant_rate)

    def bounds_of(self, device: Known | None) -> Bounds:
        """Give what holds for a device; None: one that is not there any more."""
        checker = self._ports.gate.checker_of(device) if device is not None else None
        ours = self._config
        spec = checker.spec if checker is not None else _NO_TYPE
        return Bounds(
            min(_own(spec.media_limit_bytes, ours.media_limit_bytes), ours.media_limit_bytes),
            Room(_own(spec.media_device_bytes, ours.media_device_bytes), ours.media_tenant_bytes),
            spec.media_keep_days or ours.media_keep_days,
            spec.media_keep_bytes if spec.media_keep_bytes is not None else ours.media_keep_bytes,
        )

    def accept(self, sent: Sent, pieces: Iterable[bytes], length: int | None) -> Item:
        """Keep one blob as it comes, and its point; `length` is what its sender says of its size.

        Raises:
            TooLarge, NotWhatItSays, BadRequest, Unprocessable: it cannot be kept.
            Forbidden: its device waits to be accepted.
            TooManyRequests: over a rate, or over what may be kept.
            Unavailable: nothing was kept.
        """
        wait = self._rates.take(sent.whose, UNLIMITED, size=length or 0)
        if wait.seconds:
            LIMITED.labels(wait.scope, "refused").inc()
            raise TooManyRequests(wait.in_words(), retry_after_s=ceil(wait.seconds))
        bounds = self.bounds_of(sent.device)
        self._index.demand_room(sent.whose, length or 0, bounds.room)  # before it comes
        item, readings = self._take(sent, pieces, length or 0, bounds)
        self._append(readings)
        self._count([(sent.device, item)])
        return item

    def accept_batch(self, batch: Batch) -> Verdict:
        """Keep a bridge's messages, each for itself. Raises Unavailable: send the batch again; nothing comes twice."""
        names = {delivery.device for delivery in batch.deliveries if is_device_id(delivery.device)}
        found = self._ports.gate.find(names, doubts=True)
        endings: list[Ending] = []
        items: list[tuple[Known, Item]] = []
        readings: list[Reading] = []
        late: Counts[str] = Counts()
        for index, delivery in enumerate(batch.deliveries):
            if not delivery.payload:
                continue  # a deleted retained message: nothing was sent
            device = found.known.get(delivery.device)
            if delivery.device in found.unanswered:
                endings.append(Ending(index, "deferred", "peer_unavailable", "the registry is away"))
                continue
            try:
                item, made = self._take_delivery(device, delivery, batch.bridge, late)
            except _Later as later:
                endings.append(Ending(index, "deferred", "rate_limited", retry_s=later.seconds))
            except Unavailable:
                raise
            except HeadwaterError as error:
                endings.append(Ending(index, "refused", error.code, error.detail))
                self._refuse(NAME, device.tenant if device is not None else "")
            else:
                items.append((found.known[item.device], item))
                readings += made
        self._append(readings)
        self._count(items)
        self._ports.reports.note_all_seen({item.device: item.received_ns for _, item in items})
        return Verdict(len(items), endings)

    def _admit(self, device: Known, delivery: Delivery, late: Counts[str]) -> None:
        whose = (device.tenant, device.id)
        wait = self._rates.take(whose, UNLIMITED, size=len(delivery.payload), ahead=late[device.id])
        if not wait.seconds:
            return
        late[device.id] += 1
        LIMITED.labels(wait.scope, "refused" if delivery.is_surplus else "deferred").inc()
        if delivery.is_surplus:  # the bridge has no room to let it wait
            raise TooManyRequests(wait.in_words())
        raise _Later(wait.seconds)

    def _take_delivery(
        self, device: Known | None, delivery: Delivery, bridge: str, late: Counts[str]
    ) -> tuple[Item, list[Reading]]:
        if device is None:
            raise Forbidden(f"no device {delivery.device}", code="unknown_device")
        if not device.is_active:
            raise Forbidden(f"{device.id} is disabled", code="device_disabled")
        channel, named = channel_of(delivery.topic), parse_device_topic(delivery.topic)
        if channel is None or named is None or named.device_id != device.id:
            raise BadRequest(f"no channel: {delivery.topic[:80]}", code="bad_topic")
        self._admit(device, delivery, late)
        bounds, size = self.bounds_of(device), len(delivery.payload)
        limit = min(bounds.limit_bytes, self._config.media_mqtt_limit_bytes)
        sent = Sent(device, channel, delivery.received_ns, source=delivery.topic, delivery=delivery, session=bridge)
        return self._take(sent, [delivery.payload], size, bounds._replace(limit_bytes=limit))

    def _take(self, sent: Sent, pieces: Iterable[bytes], size: int, bounds: Bounds) -> tuple[Item, list[Reading]]:
        if sent.device.is_held:
            raise Forbidden(f"{sent.device.id} waits to be accepted; media of it are not kept", code="device_held")
        if size > bounds.limit_bytes:
            raise TooLarge(f"a blob of {size} bytes, limit {bounds.limit_bytes}")
        time_ns = self._time_of(sent)
        with self._arrivals.take(pieces, bounds.limit_bytes) as arrived:
            if arrived.size < size:
                detail = f"the blob ends after {arrived.size} of {size} bytes"
                raise Unavailable(detail, code="media_unavailable", retry_after_s=5)
            seen = _look(arrived, sent.type)
            size_of = (seen.width, seen.height) if seen.is_picture else (None, None)
            item = Item(
                0, *sent.whose, sent.channel, time_ns, sent.received_ns, arrived.sha256, arrived.size, seen.type,
                *size_of,
            )  # fmt: skip
            item = self._keep(sent, arrived, item, bounds)
        return item, self._readings(sent, item, seen)

    def _keep(self, sent: Sent, arrived: Arrived, item: Item, bounds: Bounds) -> Item:
        is_again = sent.delivery is not None and sent.delivery.dup and bool(sent.message)
        again = self._index.find_again(item, sent.message) if is_again else None
        again = again or self._index.find_same(item)
        if again is not None:  # durable since it came first: a batch that comes again gets further each time
            return again
        self._index.demand_room(sent.whose, item.size, bounds.room)
        with self._index.turns.putting(item.sha256):
            arriving = self._index.announce(item.sha256, clock.now_ns())
            self._blobs.keep(arrived)
            try:
                self._demand_there(sent.device)
                return self._index.add(item, sent.message, arriving, bounds.room)
            except (Forbidden, TooManyRequests):  # meanwhile it went, or others of it came
                self._index.give_up(arriving)
                raise

    def _demand_there(self, device: Known) -> None:
        """Refuse a blob whose device was disabled or removed while it came: its data may be erased already."""
        found = self._ports.gate.find([device.id])
        now = found.known.get(device.id)
        is_same = now is not None and now.born_ns == device.born_ns and now.is_active >= device.is_active
        if not is_same and device.id not in found.unanswered:
            raise Forbidden(f"{device.id} was disabled or removed while this came", code="device_disabled")

    def _time_of(self, sent: Sent) -> int:
        if sent.time_ns is None:
            return sent.received_ns
        checker = self._ports.gate.checker_of(sent.device)
        try:
            policy = clocks.policy_of(checker.spec if checker is not None else None)
            return clocks.place(sent.time_ns, sent.received_ns, policy)[0] or sent.received_ns
        except clocks.OutsideWindow as error:
            raise Unprocessable(error.detail, code=error.code) from None

    def _readings(self, sent: Sent, item: Item, seen: Look) -> list[Reading]:
        delivery = sent.delivery
        message = Message(
            sent.device, PROTOCOLS[NAME], b"", sent.received_ns, "http" if delivery is None else "mqtt", sent.source,
            delivery.mid if delivery else 0, delivery.dup if delivery else False,
        )  # fmt: skip
        record = to_record(seen, item.size, item.sha256, item.channel, item.time_ns)
        record.fields["media.path"] = content_path(item.id)
        return self._ports.intake.sort_record(message, record).readings

    def _append(self, readings: list[Reading]) -> None:
        self._ports.intake.save()
        if readings:
            self._ports.commit.append(readings)

    def _count(self, items: list[tuple[Known, Item]]) -> None:
        uses = ((item.tenant, device.type or "", item.device, (1, 1, item.size)) for device, item in items)
        self._ports.reports.usage.note(uses)
        for _, item in items:
            READINGS.labels("accepted", NAME).inc()
            BLOBS.labels(item.type.removeprefix("image/") if item.type in PICTURES else "other").inc()
            BYTES.inc(item.size)


def type_named(text: str) -> str:
    """Give the type that a sender names, as far as it says something."""
    named = text.partition(";")[0].strip().lower()
    return named if _TYPE.fullmatch(named) and named not in _SAYS_NOTHING else ""


def _look(arrived: Arrived, declared: str) -> Look:
    if not arrived.size:
        raise BadRequest("an empty blob", code="no_values")
    try:
        return look(arrived.file, declared)
    except Broken as error:
        raise NotWhatItSays(str(error)) from None


def _own(of_type: int | None, of_installation: int) -> int:
    return of_installation if of_type is None else of_type
