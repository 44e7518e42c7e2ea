"""The verbs of ingestion: accept a request, accept a bridge's batch. Nothing is answered before it is durable.

Knows no Flask and no SQL. Order of keeping: types of new fields, then the quarantine, then the spool; when the spool
refuses, what was just quarantined is taken back, because the sender will come again with all of it.
"""

from __future__ import annotations

import threading
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from chassis import parking
from chassis.metrics import Counter
from ingest.batches import BatchSorting, not_kept
from ingest.children import Children
from ingest.framing import Batch, Ending, Saying, Verdict
from ingest.intake import Sorted
from ingest.message import Message
from ingest.ports import Ports, report_parts, to_refused
from ingest.protocols import Protocol
from ingest.protocols.base import Host
from ingest.quarantine import WAITS, Item, Kept, Refused
from ingest.rates import LIMITED, UNLIMITED, closer
from ingest.readings import Reading
from ingest.validation import TypeChecker
from wire.errors import TooLarge, TooManyRequests, Unavailable

READINGS = Counter("headwater_ingest_readings", "Readings by their end", ["end", "protocol"])
OF_US = ("peer_unavailable", "quarantine_full")  # why a message waits that is within its device's rate
_readings = lru_cache(64)(READINGS.labels)  # looking a label up costs more than counting


class Receipt(NamedTuple):
    """What became of one request."""

    accepted: int
    quarantined: list[Item]


class IngestService:
    """Accepts messages for the protocols of one ingestion service. Thread-safe."""

    def __init__(self, ports: Ports, protocols: dict[str, Protocol], hosts: Sequence[Host] = ()) -> None:
        """`hosts` decode those of the protocols whose messages must be taken in order."""
        self.protocols = protocols
        self._hosts = hosts
        self._in_order = threading.Lock()  # held for a batch where there are hosts, and by who else uses them
        self.after_batch: Callable[[], None] = lambda: None
        self.children = Children(ports.gate)
        self._ports = ports
        self._lock = threading.Lock()  # guards _refused
        self._refused: Counts[str] = Counts()  # by tenant

    def accept(self, message: Message) -> Receipt:
        """Keep one request's message: its good readings in the spool, the others in the quarantine.

        Raises:
            TooLarge: it is over a limit as a whole; refused.
            TooManyRequests: the device is over its rate; or all of it would have to be quarantined, but the device's
                share is full; refused.
            Unavailable: nothing was kept.
            PeerUnavailable: it names devices that are not known here, and the registry is away; nothing was kept.
        """
        checker = self._ports.gate.checker_of(message.device)
        rates, whose = self._ports.rates, message.whose
        limits = closer(message.device.rate, checker.limits if checker else UNLIMITED)
        is_limited = rates.is_on or limits is not UNLIMITED
        if is_limited and (wait := rates.take(whose, limits, size=len(message.content))).seconds:
            LIMITED.labels(wait.scope, "refused").inc()
            raise TooManyRequests(wait.in_words(), retry_after_s=ceil(wait.seconds))
        if message.device.is_held:
            return self._hold(message, checker)
        readings = self._ports.intake.read(message, checker)
        found = self._ports.intake.sort(message, checker) if readings is None else Sorted(readings)
        if is_limited:
            rates.charge(whose, limits, found.own_count(message.device.id) if found.devices else found.count)
        if not found.is_readable and found.items[0].code == "too_large":
            raise TooLarge(found.items[0].detail)
        refused = to_refused(message, checker, found)
        kept = self._keep(found.readings, [refused] if refused else [])
        is_kept = not kept or kept[0].state == "kept"
        if not is_kept and not found.readings:
            raise TooManyRequests(not_kept(found.items[0]).detail, retry_after_s=60, code="quarantine_full")
        if found.is_news:
            report_parts(self._ports.reports, message, found)
        self._ports.reports.usage.note(found.uses(message))
        spoken = message.device.tenant, message.protocol.name
        self._count(*spoken, "accepted", len(found.readings))
        self._count(*spoken, "quarantined" if is_kept else "refused", len(found.items))
        if not is_kept:
            self._note_refused({message.device.tenant: len(found.items)})
        return Receipt(len(found.readings), found.items if is_kept else [not_kept(item) for item in found.items])

    def _hold(self, message: Message, checker: TypeChecker | None) -> Receipt:
        refused = Refused(message.to_raw(checker, is_readable=True), [WAITS])
        if self._keep([], [refused])[0].state != "kept":
            raise TooManyRequests(not_kept(WAITS).detail, retry_after_s=60, code="quarantine_full")
        self._ports.reports.usage.note([message.use(0)])
        self._count(message.device.tenant, message.protocol.name, "quarantined", 1)
        return Receipt(0, [WAITS])

    def accept_batch(self, batch: Batch) -> Verdict:
        """Keep a bridge's messages, each for itself, with one commit for all.

        Raises:
            Unavailable: nothing was kept; send the batch again.
        """
        if not self._hosts:
            return self._take_batch(batch)
        with self._in_order:
            try:
                verdict = self._take_batch(batch)
                for host in self._hosts:
                    host.commit()
            except BaseException:
                for host in self._hosts:
                    host.rollback()
                raise
            dues = [host.due() for host in self._hosts]
        self.after_batch()
        sayings = [Saying(topic, payload) for due in dues for topic, payload in due.sayings]
        again_s = min((due.again_s for due in dues if due.again_s), default=0.0)
        return Verdict(verdict.accepted, verdict.endings, sayings, again_s)

    @contextmanager
    def hold_hosts(self) -> Iterator[None]:
        """Let no batch be decoded meanwhile."""
        with self._in_order:
            yield

    def _take_batch(self, batch: Batch) -> Verdict:
        sorting = BatchSorting(self._ports, self.protocols, batch.bridge, self.children)
        sorting.find_devices(batch.deliveries)
        sorting.take_all(batch.deliveries)
        self._ports.intake.save()
        kept = self._ports.quarantine.add(sorting.refused) if sorting.refused else []
        readings = sorting.settle(kept)
        ids = [id_ for each in kept for id_ in each.ids]
        if self._hosts:
            self._demand_all(sorting.endings, ids)
        self._append(readings, ids)
        self._ports.reports.usage.note(sorting.used)
        for (tenant, protocol, end), count in sorting.counts.items():
            self._count(tenant, protocol, end, count)
        self._note_refused(sorting.count_refused(batch.deliveries))
        return Verdict(len(readings), sorting.endings)

    def _demand_all(self, endings: list[Ending], quarantined: list[int]) -> None:
        """Let a batch wait as a whole of which a message must wait that was decoded: those behind it build on it."""
        waits = next((ending for ending in endings if ending.end == "deferred" and ending.code in OF_US), None)
        if waits is not None:
            if quarantined:
                self._ports.quarantine.undo(quarantined)
            raise Unavailable(waits.detail, code=waits.code)

    def refuse(self, protocol: str, tenant: str) -> None:
        """Count a reading that was refused with a reply and not kept; `tenant` "": it is not known whose it was."""
        self._count(tenant, protocol if protocol in self.protocols else "unknown", "refused", 1)
        self._note_refused({tenant: 1})

    def save_counts(self) -> None:
        """Add what was refused since the last call to the durable count; called each few seconds."""
        with self._lock:
            refused, self._refused = self._refused, Counts()
        if refused:
            self._ports.quarantine.count_refused(refused)

    def _keep(self, readings: list[Reading], refused: list[Refused]) -> list[Kept]:
        self._ports.intake.save()
        kept = parking.aside(self._ports.quarantine.add, refused) if refused else []
        if any(each.state == "full" for each in kept):
            raise Unavailable("the quarantine is full", code="quarantine_full", retry_after_s=30)
        self._append(readings, [id_ for each in kept for id_ in each.ids])
        return kept

    def _append(self, readings: list[Reading], quarantined: list[int]) -> None:
        try:
            if readings:
                self._ports.commit.append(readings)
        except Exception:
            if quarantined:
                parking.aside(self._ports.quarantine.undo, quarantined)
            raise

    def _count(self, tenant: str, protocol: str, end: str, readings: int) -> None:
        if not readings:
            return
        _readings(end, protocol).inc(readings)
        self._ports.traffic.note(tenant, protocol, end, readings)

    def _note_refused(self, readings: Mapping[str, int]) -> None:
        if readings:
            with self._lock:
                self._refused.update(readings)
