"""What the verbs of ingestion work with, and the one conversion they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ingest.downlinks import Downlinks
from ingest.gate import Gate
from ingest.intake import Intake, Sorted
from ingest.message import Message
from ingest.quarantine import Quarantine, Refused
from ingest.rates import RateLimits
from ingest.readings import Reading
from ingest.reports import AuditEntry, Reports
from ingest.traffic import Traffic
from ingest.validation import TypeChecker


class Commit(Protocol):
    """Keeps readings durably: `ingest.spool.batcher.GroupCommit`."""

    def append(self, readings: Sequence[Reading]) -> None:
        """Return when they are durable. Raises Unavailable: nothing of them counts as kept."""
        ...

    def accepted(self) -> int:
        """Readings that this slot ever accepted."""
        ...

    def size_bytes(self) -> int:
        """Bytes of this slot on disk."""
        ...


@dataclass(slots=True, frozen=True)
class Ports:
    """What the verbs work with."""

    gate: Gate
    intake: Intake
    commit: Commit
    quarantine: Quarantine
    reports: Reports
    rates: RateLimits = field(default_factory=RateLimits)
    downlinks: Downlinks | None = None  # of the service that has them
    traffic: Traffic = field(default_factory=Traffic)


def report_parts(reports: Reports, message: Message, found: Sorted) -> None:
    """Tell of the devices that a message spoke for, of their fields, and of names that its sender may not use."""
    is_mqtt = message.transport == "mqtt"
    reports.note_children(found.devices, message.received_ns, by_mqtt=is_mqtt)
    sender, door = message.device, "MQTT" if is_mqtt else "HTTP"
    reports.note_presence(found.presence, message.received_ns)
    if found.described:
        reports.descriptions.note(sender, found.described)
    for name in found.trespasses:
        said = f"over {door}: the message names {name}"
        action = "telemetry.identity_mismatch"
        reports.note_attempt(AuditEntry(f"device:{sender.id}", action, f"device:{name}", said, tenant=sender.tenant))


def to_refused(message: Message, checker: TypeChecker | None, found: Sorted) -> Refused | None:
    """Give what the quarantine keeps of a sorted message; None when nothing of it is refused."""
    if not found.items:
        return None
    raw = message.to_raw(checker, is_readable=found.is_readable)
    return Refused(replace(raw, content=found.restated()) if found.restated is not None else raw, found.items)
