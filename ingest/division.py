"""A message that speaks for several devices, divided: each record goes to the device that it names.

Nothing of a message is kept before all of its names are resolved, so one that has to wait waits as a whole; what a
device may not have costs its own records only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from ingest.children import Children, Named, SenderNames, Stop
from ingest.gate import Gate, Known
from ingest.message import Message
from ingest.protocols.base import Answer, Decoded, Record
from ingest.quarantine import HELD, WAITS
from ingest.rates import LIMITED, UNLIMITED, RateLimits, closer
from ingest.validation import TypeChecker
from wire.external import MAX_NAME_BYTES

SHOWN = 80  # characters of a name in a reason
_DETAILS = {
    "bad_name": f"a name is scheme:name, of {MAX_NAME_BYTES} bytes at most, without control characters",
    "child_refused": "the gateway's rules let no unknown children in",
    "too_many_children": "the gateway has as many children as it may",
    "unknown_device": "no device has this name",
    "device_disabled": "the device is disabled",
    HELD: WAITS.detail,
}


@dataclass(slots=True, frozen=True)
class Again:
    """What is known of a message that is sorted once more."""

    owners: Mapping[int | None, Known | None]  # of records: decided when they came; None: deleted since
    records: AbstractSet[int | None] | None  # only these, where it is divided; None: all
    checker_of: Callable[[Known], TypeChecker | None]


@dataclass(slots=True)
class Part:
    """The records of one device, or those that are stopped for one reason."""

    device: Known  # whose they are, or would be
    decoded: Decoded = field(default_factory=Decoded)
    code: str | None = None  # of why they are not taken
    detail: str = ""


class Division:
    """Divides messages. Thread-safe."""

    def __init__(self, gate: Gate, rates: RateLimits) -> None:
        self.children = Children(gate)
        self._gate = gate
        self._rates = rates

    def names(self, sender: Known, again: Again | None) -> SenderNames:
        """Give the names that a sender may use; sorted once more, also those of devices that its records went to."""
        others = [owner for owner in again.owners.values() if owner is not None] if again is not None else ()
        return SenderNames(self._gate, sender, others)

    def divide(self, message: Message, decoded: Decoded, again: Again | None, *, may_admit: bool) -> list[Part]:
        """Give the parts of a message, that of its sender first.

        Raises:
            PeerUnavailable: what a name stands for is not known here and the registry is away.
        """
        if again is not None and again.records is not None:
            decoded = replace(
                decoded,
                records=[record for record in decoded.records if record.index in again.records],
                faults=[fault for fault in decoded.faults if fault.index in again.records],
            )
        owners = again.owners if again is not None else {}
        names = {
            record.device for record in decoded.records if record.device is not None and record.index not in owners
        }
        named = self.children.find_named(message.device, names, may_admit=may_admit) if names else Named()
        parts = _sort_out(message.device, decoded, named, owners)
        if again is None and may_admit:
            for part in parts[1:]:
                self._limit(part)
        return [part for part in parts if part.decoded.records or part.decoded.faults]

    def presence(self, sender: Known, told: Mapping[str, bool]) -> dict[str, bool]:
        """Give by id which of the devices that a sender may speak for it tells to be online, and which not.

        Raises:
            PeerUnavailable: what a name stands for is not known here and the registry is away.
        """
        found: dict[str, bool] = {}
        for is_online in (True, False):  # nobody is registered by a death
            names = {name for name, state in told.items() if state == is_online}
            named = self.children.find_named(sender, names, may_admit=is_online) if names else Named()
            found |= {device.id: is_online for device in named.known.values()}
        return found

    def answers(self, sender: Known, told: Sequence[Answer]) -> list[Answer]:
        """Give the answers of devices that a sender may speak for, by their ids.

        Raises:
            PeerUnavailable: what a name stands for is not known here and the registry is away.
        """
        named = self.children.find_named(sender, {each.device for each in told}, may_admit=False)
        known = [(each, named.known.get(each.device)) for each in told]
        return [replace(each, device=device.id) for each, device in known if device is not None]

    def checker_of(self, device: Known, again: Again | None) -> TypeChecker | None:
        """Give the checker of the device of a part."""
        return self._gate.checker_of(device) if again is None else again.checker_of(device)

    def _limit(self, part: Part) -> None:
        """Stop a part of a device that is over its rate, or whose type is: its neighbours must not wait for it."""
        checker = self._gate.checker_of(part.device)
        limits = closer(part.device.rate, checker.limits if checker is not None else UNLIMITED)
        if part.code is not None or not (self._rates.is_on or limits is not UNLIMITED):
            return
        whose = part.device.tenant, part.device.id
        records = part.decoded.records
        times = {(record.measurement, record.time_ns) for record in records} if part.decoded.joins else records
        wait = self._rates.take_part(whose, limits, len(times))
        if wait.seconds:
            LIMITED.labels(wait.scope, "quarantined").inc()
            part.code, part.detail = "rate_limited", wait.in_words()


def _sort_out(sender: Known, decoded: Decoded, named: Named, owners: Mapping[int | None, Known | None]) -> list[Part]:
    own = Part(sender)
    parts: dict[tuple[str, str], Part] = {(sender.id, ""): own}
    places: dict[int, Part] = {}
    for record in decoded.records:
        device, stop = _whose(record, sender, named, owners)
        key = (device.id, f"{stop.code} {record.device}") if stop is not None else (device.id, "")
        part = parts.get(key)
        if part is None:
            detail = _say(sender, record.device, stop.code) if stop is not None else ""
            part = parts[key] = Part(device, code=stop.code if stop is not None else None, detail=detail)
        part.decoded.records.append(record)
        places[record.index] = part
    for fault in decoded.faults:
        part = places.get(fault.index, own) if fault.field is not None else own
        part.decoded.faults.append(fault)
    own.decoded.is_unreadable = decoded.is_unreadable
    for part in parts.values():
        part.decoded.joins = decoded.joins
    return list(parts.values())


def _whose(
    record: Record, sender: Known, named: Named, owners: Mapping[int | None, Known | None]
) -> tuple[Known, Stop | None]:
    """Give the device that a record goes to, or the one that it is filed under and why it is stopped."""
    if record.index in owners:
        owner = owners[record.index]
        return (sender, Stop("unknown_device")) if owner is None else (owner, _stop(owner))
    if record.device is None:
        return sender, None
    device = named.known.get(record.device)
    if device is not None:
        return device, _stop(device)
    stop = named.stopped[record.device]
    return stop.owner or sender, stop


def _stop(device: Known) -> Stop | None:
    if device.is_held:
        return Stop(HELD)
    return None if device.is_active else Stop("device_disabled")


def _say(sender: Known, name: str | None, code: str) -> str:
    said = _DETAILS.get(code, f"{sender.id} may not speak for it")
    return said if name is None else f"{name[:SHOWN]!r}: {said}"
