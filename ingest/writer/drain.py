"""One turn of the writer: take from the spools, sift, store, quarantine what the store refuses, remember. No threads.

The order is the promise: nothing is remembered as consumed before the store (or the quarantine) has it durably, and no
segment is deleted before that is remembered. A turn that fails keeps its batch and starts again with the same one.
writer.db is told of several turns at once: what a crash makes it forget is written again, which changes nothing.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from queue import SimpleQueue
from typing import Protocol

import msgspec

from chassis import ending, logs
from chassis.metrics import Counter, Histogram
from ingest import replay
from ingest.quarantine import Item, Kept, RawMessage, Refused
from ingest.readings import Reading
from ingest.spool.reader import Position, SpoolReader, Taken
from ingest.writer.dedupe import Dedupe, Deliveries
from ingest.writer.delays import note_stored
from ingest.writer.gaps import BootChange, Boots
from ingest.writer.state import Progress, TenantCount, WriterState
from series.port import BatchRefused, Refusal, SeriesWriter, WriteOutcome
from wire import clock
from wire.errors import StoreUnavailable, Unavailable

log = logs.get(__name__)
BATCH_READINGS = 20_000  # of a backlog: turns of 5,000 drained at two thirds of the rate, with 20 MB less memory
REMEMBER_S = 0.5  # what a crash may make us write again; each time costs a row for every device heard of
WRITE_TIMEOUT_S = 10.0
PATIENCE_TURNS = 3  # in which an engine may fail on a batch: a passing trouble is no poison
STORED = Counter("headwater_writer_stored", "Readings stored")
DUPLICATES = Counter("headwater_writer_duplicates", "Readings that had come before")
STORE_REFUSED = Counter("headwater_writer_store_refused", "Readings that the store refused wholly, now in quarantine")
UNQUARANTINED = Counter("headwater_writer_unquarantined", "Refused by the store, and the device's quarantine is full")
DAMAGED = Counter("headwater_writer_damaged", "Readings lost to damage of the spool")
POISON = Counter("headwater_writer_poison", "Readings on which the store engine failed, now in quarantine")
BATCH_SECONDS = Histogram(
    "headwater_writer_batch_seconds", "From taking a batch to the store's answer",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)  # fmt: skip
BATCH_SIZE = Histogram(
    "headwater_writer_batch_readings", "Readings of a batch", buckets=(1, 10, 50, 100, 500, 1000, 2500, 5000, 20000)
)


_TENANT = attrgetter("tenant")
METRICS = {"stored": STORED, "duplicates": DUPLICATES, "store_refused": STORE_REFUSED, "damaged": DAMAGED}


class Refuge(Protocol):
    """Where refused points wait: `ingest.quarantine.Quarantine`."""

    def add(self, refused: Sequence[Refused]) -> list[Kept]: ...


class Listeners(Protocol):
    """Who wants to know what was committed: `ingest.writer.feed.News`."""

    def note(self, boots: Sequence[BootChange]) -> None: ...
    def offer(self, points: Iterable[Reading]) -> None: ...
    def forget(self, devices: Iterable[str]) -> None: ...


class SpoiledError(Exception):
    """A batch was taken and could not be sifted. In memory its readings are passed over, and some count as seen.

    On disk they are not: begin anew from there, with another Drain.
    """


@dataclass(slots=True)
class _Batch:
    taken: Taken
    fresh: list[int]  # indexes of the readings that are new
    points: list[Reading]  # these
    begun_s: float
    outcome: WriteOutcome | None = None
    failures: int = 0  # turns in which the engine failed on it


class Drain:
    """Moves readings from the spools to the store. One thread; `oldest_received_ns` may be asked from others."""

    def __init__(
        self,
        reader: SpoolReader,
        state: WriterState,
        store: SeriesWriter,
        quarantine: Refuge,
        listeners: Listeners,
        born_of: Callable[[Reading], int] = attrgetter("born_ns"),
    ) -> None:
        """`born_of` as `ingest.writer.gaps.Boots` has it."""
        self._reader = reader
        self._state = state
        self._store = store
        self._quarantine = quarantine
        self._listeners = listeners
        boots = Boots(state.load_boot, state.unsettled_boots(), born_of)
        self._dedupe = Dedupe(boots, Deliveries(*state.deliveries()))
        self._held: _Batch | None = None
        # Of the turns since writer.db was last told, all of them stored:
        self._positions: dict[str, Position] = {}
        self._counts: Counts[str] = Counts()
        self._stored: Counts[str] = Counts()  # by tenant
        self._repeated: Counts[str] = Counts()  # by tenant
        self._told_s = 0.0
        self._unsaved: Progress | None = None  # a commit that failed
        self._gone: SimpleQueue[Mapping[str, int]] = SimpleQueue()
        self._is_forgetting = False
        self._is_spoiled = False

    def step(self) -> int:
        """Move one batch; give how many readings it had.

        Raises:
            Unavailable: the store or the quarantine cannot take it now; the next call tries the same batch again.
            SpoiledError: this and each further call.
        """
        if self._held is None:
            if self._is_due():
                self._remember()
            self._forget()
            self._held = self._take_whole()
        batch = self._held
        if batch is None:
            self._remember()
            return 0
        if batch.outcome is None:
            batch.outcome = self._write(batch) if batch.points else WriteOutcome(0)
        self._quarantine_refused(batch, batch.outcome.refused)
        self._held = None
        self._positions |= batch.taken.positions
        self._count(batch, batch.outcome)
        self._tell(batch, batch.outcome)
        return max(1, len(batch.taken.readings))

    def finish(self) -> None:
        """Remember what is stored, before a stop in order: nothing is then written again. Raises Unavailable."""
        if self._held is None and not self._is_spoiled:
            self._remember()

    def forget_devices(self, gone: Mapping[str, int]) -> None:
        """Forget the numbers of devices that are no more, before the next batch; may be called by any thread."""
        self._gone.put(gone)

    @property
    def has_forgotten_all(self) -> bool:
        """Tell whether nothing waits to be forgotten."""
        return self._gone.empty() and not self._is_forgetting

    def oldest_received_ns(self) -> int | None:
        """When the oldest reading that is not yet stored was received; None when all are."""
        held = self._held
        times = [reading.received_ns for reading in held.taken.readings] if held else []
        waiting = self._reader.oldest_received_ns()
        return min([*times, waiting] if waiting is not None else times, default=None)

    def _forget(self) -> None:
        self._is_forgetting = not self._gone.empty()
        while not self._gone.empty():
            gone = self._gone.get()
            try:
                self._state.forget_devices(gone)
            except Unavailable:
                self._gone.put(gone)
                raise
            self._dedupe.boots.forget(gone)
            self._listeners.forget(gone)
        self._is_forgetting = False

    def _is_due(self) -> bool:
        readings = sum(self._counts.values())
        is_late = bool(self._positions) and time.monotonic() - self._told_s >= REMEMBER_S
        return is_late or readings >= BATCH_READINGS or self._unsaved is not None

    def _remember(self) -> None:
        """Keep what changed since the last time in one transaction, then let go of the segments.

        Only between batches: what was sifted counts as seen, so all of it must be stored by now.
        """
        now_s = time.monotonic()
        if self._unsaved is None:
            boots, deliveries = self._dedupe.boots.take_changes(now_s), self._dedupe.deliveries
            if not boots and not self._positions:
                return
            changes = deliveries.take_changes()
            tenants = self._take_tenants()
            self._unsaved = Progress(self._positions, self._counts, boots, changes, deliveries.number, tenants)
            self._positions, self._counts = {}, Counts()
        self._state.commit(self._unsaved)
        progress, self._unsaved, self._told_s = self._unsaved, None, now_s
        self._reader.drop_consumed(progress.positions)
        self._listeners.note(progress.boots)

    def _take_whole(self) -> _Batch | None:
        was_spoiled, self._is_spoiled = self._is_spoiled, True
        if was_spoiled:
            raise SpoiledError
        try:
            batch = self._take()
        except Exception as fault:
            raise SpoiledError from fault
        self._is_spoiled = False
        return batch

    def _take(self) -> _Batch | None:
        taken = self._reader.take(BATCH_READINGS)
        if not taken.positions:
            return None
        begun_s = time.monotonic()
        readings = taken.readings
        fresh = self._dedupe.sift(readings, begun_s)
        points = readings if len(fresh) == len(readings) else [readings[index] for index in fresh]
        return _Batch(taken, fresh, points, begun_s)

    def _count(self, batch: _Batch, outcome: WriteOutcome) -> None:
        refused = sum(refusal.field is None for refusal in outcome.refused)
        counts = {
            "stored": len(batch.points) - refused + batch.taken.consumed,
            "duplicates": len(batch.taken.readings) - len(batch.points),
            "store_refused": refused,
            "damaged": batch.taken.damaged,
        }
        for name, metric in METRICS.items():
            metric.inc(counts[name])
            self._counts[name] += counts[name]
        self._count_tenants(batch, outcome)

    def _count_tenants(self, batch: _Batch, outcome: WriteOutcome) -> None:
        """Count whose readings these were: 0.1 us each (bench/writer.py)."""
        points, readings = batch.points, batch.taken.readings
        fresh = Counts(map(_TENANT, points))
        self._stored.update(fresh)
        self._stored.subtract(points[each.index].tenant for each in outcome.refused if each.field is None)
        if len(points) < len(readings):
            self._repeated.update(Counts(map(_TENANT, readings)) - fresh)

    def _take_tenants(self) -> dict[str, TenantCount]:
        stored, repeated = self._stored, self._repeated
        self._stored, self._repeated = Counts(), Counts()
        return {tenant: TenantCount(stored[tenant], repeated[tenant]) for tenant in stored | repeated}

    def _write(self, batch: _Batch) -> WriteOutcome:
        points = batch.points
        try:
            return self._store.write(points, timeout_s=WRITE_TIMEOUT_S)
        except StoreUnavailable:
            raise
        except BatchRefused as refusal:
            log.warning("store_refused_batch", points=len(points), detail=refusal.detail)
            return self._isolate(points, refusal)
        except Exception as failure:
            log.fault("store_engine_failed", points=len(points))
            batch.failures += 1
            if self._store.health() != "ok" or batch.failures < PATIENCE_TURNS:
                raise StoreUnavailable(f"the store failed: {type(failure).__name__}") from failure
            outcome = self._isolate(points, failure)
            if len(points) > 1 and not outcome.accepted:  # every single one: that is no poison, that is a broken engine
                raise StoreUnavailable(f"the store failed: {type(failure).__name__}") from failure
            POISON.inc(len(points) - outcome.accepted)
            return outcome

    def _isolate(self, points: list[Reading], failure: Exception) -> WriteOutcome:
        """Write a batch that the engine failed on, or refused, by halves: one reading cannot stop all others."""
        if len(points) == 1:
            is_said = isinstance(failure, BatchRefused)
            why = str(failure) if is_said else f"the store engine failed on it: {type(failure).__name__}: {failure}"
            return WriteOutcome(0, [Refusal(0, "store_refused", why)])
        middle = len(points) // 2
        first, second = self._try(points[:middle]), self._try(points[middle:])
        shifted = [replace(refusal, index=refusal.index + middle) for refusal in second.refused]
        return WriteOutcome(first.accepted + second.accepted, [*first.refused, *shifted])

    def _try(self, points: list[Reading]) -> WriteOutcome:
        try:
            return self._store.write(points, timeout_s=WRITE_TIMEOUT_S)
        except StoreUnavailable:
            raise
        except Exception as failure:
            ending.end_if_short(failure)  # no reading is to blame for that
            return self._isolate(points, failure)

    def _quarantine_refused(self, batch: _Batch, refusals: Sequence[Refusal]) -> None:
        if not refusals:
            return
        items: dict[int, list[Item]] = {}
        for refusal in refusals:
            item = Item(0, refusal.code, refusal.detail, refusal.field, refusal.field is None)
            items.setdefault(batch.fresh[refusal.index], []).append(item)
        refused = [Refused(_as_message(batch.taken, index), found) for index, found in items.items()]
        self._dedupe.forget([batch.taken.readings[batch.fresh[each.index]] for each in refusals if each.field is None])
        for each, kept in zip(refused, self._quarantine.add(refused), strict=True):
            if kept.state == "full":
                raise Unavailable("the quarantine is full: replay or discard what waits there", retry_after_s=5)
            if kept.state == "device_full":
                # Waiting would let one device stop the fleet. Its own quarantine is full, so somebody was told before.
                UNQUARANTINED.inc()
                log.error("refused_point_not_kept", device=each.message.device, code=each.items[0].code)

    def _tell(self, batch: _Batch, outcome: WriteOutcome) -> None:
        note_stored(batch.points, clock.now_ns())
        BATCH_SECONDS.observe(time.monotonic() - batch.begun_s)
        BATCH_SIZE.observe(len(batch.taken.readings))
        if outcome.refused:
            refused = {refusal.index for refusal in outcome.refused}
            self._listeners.offer([point for index, point in enumerate(batch.points) if index not in refused])
        else:
            self._listeners.offer(batch.points)


def _as_message(taken: Taken, index: int) -> RawMessage:
    """Give a reading as a message of its own, since the bytes it came in are gone.

    Without boot_id, seq and delivery: under these it counts as seen, and its replay would be a duplicate.
    """
    reading = msgspec.structs.replace(taken.readings[index], boot_id=None, seq=None, delivery=None, content=0)
    origin, start = taken.origins[bisect_right(taken.origins, index, key=lambda each: each[1]) - 1]
    return RawMessage(
        device=reading.device,
        protocol=reading.protocol,
        transport=replay.STORE,
        content=replay.encode_reading(reading),
        received_ns=reading.received_ns,
        source=replay.STORE_REFUSED,
        tenant=reading.tenant,
        key=f"{origin}+{index - start}",  # once, also when a crash makes us write the batch again
    )
