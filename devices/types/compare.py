"""Two versions of a device type: what differs, and what that means for data that the first one took. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Literal

from wire.devices import Codec, DeviceTypeSpec, FieldSpec, read_rate_limit
from wire.schemas import TypeChange

Level = Literal["refuses", "loses", "changes", "widens"]
_OTHERWISE = {
    "time_unit": "times of readings are read in another way",
    "time_key": "times of readings are read in another way",
    "time_policy": "times of readings are read in another way",
    "time_skew_s": "times of readings are read in another way",
    "time_late_s": "what counts as history is another",
    "time_late_alerts": "alerts hear of history, or no longer do",
    "time_skew_field": "the clock's error is told in another field",
    "expected_interval_s": "silence is noticed at another time",
    "media_limit_bytes": "snapshots and other blobs of another size are taken",
    "media_device_bytes": "more or fewer bytes of media are taken",
    "media_keep_bytes": "more or fewer bytes of media are kept",
    "media_keep_days": "media are kept for another time",
}
_STRICTNESS = {"accept": 0, "drop": 1, "quarantine": 2}


def compare(before: DeviceTypeSpec, after: DeviceTypeSpec) -> list[TypeChange]:
    """Give what differs, field by field in the order of their names, then the rest; the same specs give nothing."""
    changes: list[TypeChange] = []
    for name in sorted(before.fields.keys() | after.fields.keys()):
        old, new = before.fields.get(name), after.fields.get(name)
        path = f"fields.{name}"
        if old is None and new is not None:
            changes.append(_added(path, new, before))
        elif new is None and old is not None:
            changes.append(_removed(path, old, after))
        elif old is not None and new is not None:
            changes += _compare_field(path, old, new)
    return [*changes, *_compare_rest(before, after)]


def is_compatible(changes: list[TypeChange]) -> bool:
    """Tell whether all that the first version took is taken by the second."""
    return all(change.level != "refuses" for change in changes)


def _added(path: str, new: FieldSpec, before: DeviceTypeSpec) -> TypeChange:
    if new.required:
        return _change(path, "refuses", "new and required: readings without it", "missing_field", after=_shown(new))
    if before.unknown_fields == "accept":
        detail = f"was free before: values that are no {new.type} of its range"
        return _change(path, "refuses", detail, "type_conflict", after=_shown(new))
    return _change(path, "widens", "new: it was not kept before", after=_shown(new))


def _removed(path: str, old: FieldSpec, after: DeviceTypeSpec) -> TypeChange:
    if after.unknown_fields == "quarantine":
        return _change(path, "refuses", "not named any more, and unknown fields", "unknown_field", before=_shown(old))
    if after.unknown_fields == "drop":
        return _change(path, "loses", "not named any more, and unknown fields are dropped", before=_shown(old))
    return _change(path, "widens", "not named any more: any value is taken", before=_shown(old))


def _compare_field(path: str, old: FieldSpec, new: FieldSpec) -> Iterator[TypeChange]:
    if old.type != new.type:
        yield _change(f"{path}.type", "refuses", _say_type(old, new), "type_conflict", old.type, new.type)
    if old.required != new.required:
        level: Level = "refuses" if new.required else "widens"
        detail = "readings without it" if new.required else "readings without it are taken"
        yield _change(f"{path}.required", level, detail, new.required and "missing_field", old.required, new.required)
    yield from _compare_limit(f"{path}.min", old.min, new.min, lambda low, wanted: wanted > low)
    yield from _compare_limit(f"{path}.max", old.max, new.max, lambda high, wanted: wanted < high)
    yield from _compare_limit(f"{path}.max_length", old.max_length, new.max_length, lambda most, now: now < most)
    yield from _compare_limit(f"{path}.choices", old.choices, new.choices, lambda was, now: not set(was) <= set(now))
    if old.nullable != new.nullable:
        yield _change(f"{path}.nullable", "widens", "null is no value either way", None, old.nullable, new.nullable)
    if old.unit != new.unit:
        yield _change(f"{path}.unit", "changes", "the same numbers mean something else", None, old.unit, new.unit)


def _compare_limit(path: str, old: Any, new: Any, is_narrower: Callable[[Any, Any], bool]) -> Iterator[TypeChange]:
    """Compare two limits of which None is no limit."""
    if old == new:
        return
    if new is not None and (old is None or is_narrower(old, new)):
        yield _change(path, "refuses", "values outside of it", "out_of_range", old, new)
    else:
        yield _change(path, "widens", "more values are taken", None, old, new)


def _compare_rest(before: DeviceTypeSpec, after: DeviceTypeSpec) -> Iterator[TypeChange]:
    yield from _compare_unknown(before, after)
    for name, code in (("time_back_s", "too_old"), ("time_ahead_s", "too_new")):
        for change in _compare_limit(name, getattr(before, name), getattr(after, name), lambda was, now: now < was):
            yield change.model_copy(update={"code": code if change.level == "refuses" else None})
    for name, whose in (("rate_limit", "a device"), ("type_rate_limit", "all devices together")):
        yield from _compare_rate(name, whose, getattr(before, name), getattr(after, name))
    yield from _compare_retention(before.retention_days, after.retention_days)
    for name, detail in _OTHERWISE.items():
        if getattr(before, name) != getattr(after, name):
            yield _change(name, "changes", detail, None, getattr(before, name), getattr(after, name))
    if before.codec != after.codec:
        detail = "bytes of messages are decoded in another way"
        yield _change("codec", "changes", detail, None, _brief(before.codec), _brief(after.codec))
    if before.alerts != after.alerts:
        yield _change("alerts", "changes", "other alerts to begin with", None, _names(before), _names(after))


def _compare_rate(name: str, whose: str, old: str | None, new: str | None) -> Iterator[TypeChange]:
    if old != new:
        is_slower = _is_slower(old, new)
        refusal = "rate_limited" if is_slower else None
        yield _change(name, "refuses" if is_slower else "widens", f"what {whose} sends above it", refusal, old, new)


def _compare_retention(old: int | None, new: int | None) -> Iterator[TypeChange]:
    if old == new:
        return
    if new is not None and (old is None or new < old):
        yield _change("retention_days", "loses", "older points are dropped", None, old, new)
    else:
        yield _change("retention_days", "widens", "points are kept longer", None, old, new)


def _compare_unknown(before: DeviceTypeSpec, after: DeviceTypeSpec) -> Iterator[TypeChange]:
    old, new = before.unknown_fields, after.unknown_fields
    if old == new:
        return
    if new == "quarantine":
        yield _change("unknown_fields", "refuses", "fields that the type does not name", "unknown_field", old, new)
    elif _STRICTNESS[new] > _STRICTNESS[old]:
        yield _change("unknown_fields", "loses", "fields that the type does not name are dropped", None, old, new)
    else:
        yield _change("unknown_fields", "widens", "fields that the type does not name are taken", None, old, new)


def _say_type(old: FieldSpec, new: FieldSpec) -> str:
    if (old.type, new.type) == ("int", "float"):
        return "devices whose series hold int: the store keeps a series' first type, a fraction"
    if (old.type, new.type) == ("float", "int"):
        return "numbers with a fraction"
    return f"values that are {old.type}; the store keeps a series' first type"


def _is_slower(old: str | None, new: str | None) -> bool:
    """Tell whether a limit may refuse what another took; that of the installation (None) is not known here."""
    if new is None or not new:
        return False
    if not old:
        return True
    known = {(unit, seconds): count for count, seconds, unit in read_rate_limit(old)}
    return any(count < known.get((unit, seconds), count + 1) for count, seconds, unit in read_rate_limit(new))


def _brief(codec: Codec | None) -> dict[str, Any] | None:
    """Show a codec without its script, which may be long; two scripts differ by their hash."""
    if codec is None:
        return None
    digest = sha256(codec.text.encode(errors="replace")).hexdigest()[:8]
    script = {"characters": len(codec.text), "sha256": digest} if codec.text else {}
    return codec.model_dump(exclude={"text"}, exclude_defaults=True) | script


def _names(spec: DeviceTypeSpec) -> list[str]:
    return [alert.name for alert in spec.alerts]


def _shown(field: FieldSpec) -> dict[str, Any]:
    return field.model_dump(exclude_defaults=True) | {"type": field.type}


def _change(
    path: str, level: Level, detail: str, code: Any = None, before: Any = None, after: Any = None
) -> TypeChange:
    return TypeChange(path=path, level=level, detail=detail, code=code or None, before=before, after=after)
