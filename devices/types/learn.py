"""From what was observed to a first version of a device type. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import ceil, floor, log10

from wire.descriptions import FieldDescription
from wire.devices import DeviceTypeSpec, FieldSpec, FieldType
from wire.schemas import Observation, ObservedField

ENOUGH = 10  # readings, before what was in all of them is taken for required
MARGIN = 0.25  # of the observed range, to each side
LONGEST_INTERVAL_S = 31_536_000.0


def propose(seen: Observation, told: Iterable[FieldDescription] = ()) -> DeviceTypeSpec:
    """Give a version that all of what was seen passes: types, ranges with room, what is required, how often it comes.

    Unknown fields stay accepted: what was not seen in some hours is not therefore wrong. Units and names are those that
    the devices told, where all that told any agree.
    """
    units, labels = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for each in told:
        units[each.field].add(each.unit)
        labels[each.field].add(each.label)
    fields = {}
    for name, field in sorted(seen.fields.items()):
        found = _propose(field, seen.readings)
        label = _agreed(labels[name])
        found.unit, found.description = _agreed(units[name]), found.description or label
        fields[name] = found
    return DeviceTypeSpec(
        fields=fields,
        expected_interval_s=_interval(seen.gap_s),
        description=f"learned from {seen.readings} readings of {seen.devices} devices",
    )


def _propose(seen: ObservedField, readings: int) -> FieldSpec:
    kind = _type_of(seen)
    low = high = None
    if kind in ("float", "int") and seen.low is not None and seen.high is not None:
        low, high = _widen(seen.low, seen.high)
    others = [name for name in seen.types if name != kind and {name, kind} != {"int", "float"}]
    return FieldSpec(
        type=kind,
        min=low,
        max=high,
        required=readings >= ENOUGH and seen.count == readings,
        description=f"also seen as {', '.join(others)}" if others else "",
    )


def _agreed(said: set[str]) -> str:
    words = said - {""}
    return words.pop() if len(words) == 1 else ""


def _type_of(seen: ObservedField) -> FieldType:
    if seen.types.keys() == {"int", "float"}:
        return "float"
    names: tuple[FieldType, ...] = ("float", "int", "bool", "string")
    return max(names, key=lambda name: seen.types.get(name, 0))


def _widen(low: float, high: float) -> tuple[float, float]:
    """Give a range with room to both sides, its ends round; what never was negative is not expected to be."""
    room = (high - low) * MARGIN or max(abs(high) / 2, 1.0)
    step = 10.0 ** floor(log10(room))
    below, above = floor((low - room) / step) * step, ceil((high + room) / step) * step
    if low >= 0:
        below = max(below, 0.0)
    # the product of a whole number and a power of ten has noise in its last digits
    return min(float(f"{below:.12g}"), low), max(float(f"{above:.12g}"), high)


def _interval(gap_s: float | None) -> float | None:
    if gap_s is None or not 0 < gap_s <= LONGEST_INTERVAL_S:
        return None
    return float(f"{gap_s:.2g}")
