"""What is over goes: blobs by age and by bytes of each device, then files that nobody has. Can end at any moment."""

from __future__ import annotations

from chassis import logs
from chassis.metrics import Counter, Gauge
from ingest.gate import Gate
from ingest.media.blobs import STALE_S, Arrivals, Blobs
from ingest.media.index import Holding, Index
from ingest.media.service import MediaService
from ingest.media.thumbnails import Thumbnails
from wire import clock

log = logs.get(__name__)
TURN_S = 30.0
AT_ONCE = 100  # in one transaction, for which cameras wait
DAY_NS = 86_400 * clock.NS_PER_S
EXPIRED = Counter("headwater_media_expired", "Blobs whose retention was over")
COLLECTED = Counter("headwater_media_collected", "Files removed that no device has any more")
KEPT = Gauge("headwater_media_kept_bytes", "Bytes of all that is listed; a content that several have counts for each",
             multiprocess_mode="livemax")  # fmt: skip


class Sweep:
    """Used by one thread; several processes may do it at once."""

    def __init__(self, gate: Gate, index: Index, service: MediaService, arrivals: Arrivals) -> None:
        self._gate = gate
        self._index = index
        self._service = service
        self._arrivals = arrivals

    def run(self, blobs: Blobs, thumbnails: Thumbnails, now_ns: int) -> None:
        """Remove what is over; while the registry is away, of devices it knows of nothing."""
        holdings = self._index.holdings()
        KEPT.set(sum(each.bytes for each in holdings))
        found = self._gate.find({each.device for each in holdings})
        for holding in holdings:
            if holding.device not in found.unanswered:
                self._expire(holding, now_ns)
        self._arrivals.forget_stale()
        self._collect(blobs, thumbnails, now_ns)  # last: a store that is away ends it

    def _expire(self, holding: Holding, now_ns: int) -> None:
        device = self._gate.find([holding.device]).known.get(holding.device)
        bounds = self._service.bounds_of(device if device is not None and device.tenant == holding.tenant else None)
        before_ns = None if bounds.keep_days is None else now_ns - bounds.keep_days * DAY_NS
        if before_ns is None and (bounds.keep_bytes is None or holding.bytes <= bounds.keep_bytes):
            return
        whose, removed = (holding.tenant, holding.device), AT_ONCE
        while removed == AT_ONCE:
            removed = self._index.expire(whose, before_ns, bounds.keep_bytes, AT_ONCE)
            EXPIRED.inc(removed)

    def _collect(self, blobs: Blobs, thumbnails: Thumbnails, now_ns: int) -> None:
        def remove(sha256: str) -> None:
            thumbnails.remove(sha256)
            blobs.remove(sha256)

        settled = AT_ONCE
        while settled == AT_ONCE:
            settled, removed = self._index.collect(now_ns - round(STALE_S * clock.NS_PER_S), remove, AT_ONCE)
            COLLECTED.inc(removed)
