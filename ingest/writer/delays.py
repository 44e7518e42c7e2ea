"""How long readings take to the store, by class of message: one look at the clock a batch."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from chassis.delays import DelayHistogram
from ingest.readings import Reading

STORED = DelayHistogram("headwater_writer_stored_delay_seconds", "From the receipt of a reading to its commit")
_received, _protocol, _delivery = attrgetter("received_ns"), attrgetter("protocol"), attrgetter("delivery")


def note_stored(readings: Sequence[Reading], now_ns: int) -> None:
    """Count the delays of readings that were stored just now (0.3 us each: bench/writer.py)."""
    for kind, members in by_kind(readings).items():
        STORED.add(kind, map(_received, members), now_ns)


def by_kind(readings: Sequence[Reading]) -> dict[str, Sequence[Reading]]:
    """Sort readings by the class of their message."""
    if not readings:
        return {}
    deliveries = set(map(_delivery, readings))
    if len(set(map(_protocol, readings))) == 1 and (None not in deliveries or len(deliveries) == 1):
        return {readings[0].kind: readings}  # the ordinary case
    ways = {(reading.protocol, reading.delivery is None) for reading in readings}
    found: dict[str, Sequence[Reading]] = {}
    for way in ways:
        members = [reading for reading in readings if (reading.protocol, reading.delivery is None) == way]
        found[members[0].kind] = members
    return found
