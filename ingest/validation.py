"""Readings against their device type: pydantic models are the contract, a compiled checker passes what fits.

The checker decides nothing by itself: whatever it does not pass at once goes to the model, and the model's errors
become reason codes. A property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import NoneType
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
    create_model,
)
from pydantic.types import Strict
from pydantic_core import PydanticCustomError

from ingest.protocols import times
from ingest.protocols.json.decoder import time_keys_of
from ingest.rates import limits_of
from wire.devices import DeviceType, FieldSpec
from wire.points import INT64_MIN, UINT64_MAX, FieldValue

EXACT_BELOW = 2**53

_CODES = {
    "missing": "missing_field",
    "extra_forbidden": "unknown_field",
    "greater_than_equal": "out_of_range",
    "less_than_equal": "out_of_range",
    "string_too_long": "out_of_range",
    "not_a_choice": "out_of_range",
}
_ABSENT = {
    "missing": "absent, and the device type requires it",
    "extra_forbidden": "the device type does not name it",
}
_SENTENCES: dict[str, Callable[[Any, Any], str]] = {  # by the limit that pydantic gives with its error
    "ge": lambda given, limit: f"{given} is below {limit:.15g}",
    "le": lambda given, limit: f"{given} is above {limit:.15g}",
    "max_length": lambda given, limit: f"{len(given)} characters, above {limit}",
    "choices": lambda given, limit: (
        f"{(given[:40] if isinstance(given, str) else given)!r} is not one of {', '.join(map(str, limit))[:200]}"
    ),
}
_KINDS: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "string"}


class Verdict(NamedTuple):
    """A reading against its type: `missing` refuses all of it, `faults` only the fields named."""

    fields: dict[str, FieldValue]
    faults: list[tuple[str, str, str]]  # field, code, detail
    missing: tuple[str, str, str] | None = None
    dropped: int = 0  # fields the type does not name and says to drop


class Rules(NamedTuple):
    """What a device type says of a reading, as the quick way of ordinary readings asks it (`ingest.quick`)."""

    types: dict[str, type]  # of the declared fields that are named as their JSON member is; NoneType: no quick way
    required: frozenset[str]
    bounds: tuple[tuple[str, float, float], ...]
    takes_others: bool  # fields that the type does not name
    time_keys: tuple[str, ...]
    unit: times.Unit
    policy: times.Policy
    reach: tuple[int, int]  # of `policy`
    floats: frozenset[str]  # names in `types`
    judged_by: int = 0

    @classmethod
    def of(cls, spec: DeviceType | None) -> Rules:
        """Give the rules of a device type, or of devices without one."""
        policy = times.policy_of(spec)
        if spec is None:
            return cls({}, frozenset(), (), True, time_keys_of(None), "auto", policy, policy.reach(), frozenset())
        ranges = {name: _Range.of(field) for name, field in spec.fields.items()}
        types = {name: NoneType if each.is_slow else each.kind for name, each in ranges.items() if "." not in name}
        return cls(
            types,
            frozenset(name for name, field in spec.fields.items() if field.required),
            tuple((name, each.low, each.high) for name, each in ranges.items() if each.is_bounded),
            spec.unknown_fields == "accept",
            time_keys_of(spec), spec.time_unit, policy, policy.reach(),
            frozenset(name for name, kind in types.items() if kind is float), spec.version_id,
        )  # fmt: skip


class TypeChecker:
    """Checks readings of one version of one device type. Immutable, so thread-safe."""

    def __init__(self, spec: DeviceType) -> None:
        self.spec = spec
        self.limits = limits_of(spec.name, spec)
        self.model = build_model(spec)
        self.rules = Rules.of(spec)
        self.declared = frozenset(spec.fields)
        self._ranges = {name: _Range.of(field) for name, field in spec.fields.items()}
        self._names = {f"f{position}": name for position, name in enumerate(spec.fields)}

    def check(self, fields: dict[str, FieldValue]) -> Verdict:
        """Give the fields that fit, brought to their declared types, and the faults of the others."""
        if self.rules.required <= fields.keys():
            fitting = self._pass(fields)
            if fitting is not None:
                return Verdict(fitting, [])
        return self._judge(fields)

    def _pass(self, fields: dict[str, FieldValue]) -> dict[str, FieldValue] | None:
        ranges, accepts_unknown, converted = self._ranges, self.spec.unknown_fields == "accept", {}
        for name, value in fields.items():
            wanted = ranges.get(name)
            if wanted is None:
                if not accepts_unknown:
                    return None
            elif type(value) is not wanted.kind:
                if wanted.kind is not int or type(value) is not float or not _is_whole(value):
                    return None
                converted[name] = int(value)
            if wanted is not None and wanted.is_slow:
                return None
            if wanted is not None and wanted.is_bounded and not wanted.low <= value <= wanted.high:  # type: ignore[operator]
                return None
        return fields | converted if converted else fields

    def _judge(self, fields: dict[str, FieldValue]) -> Verdict:
        known = {name: value for name, value in fields.items() if name in self.declared}
        extra = {name: value for name, value in fields.items() if name not in self.declared}
        kept = extra if self.spec.unknown_fields == "accept" else {}
        dropped = len(extra) if self.spec.unknown_fields == "drop" else 0
        try:
            checked = self.model.model_validate(fields)
        except ValidationError as error:
            faults = [self._fault(each) for each in error.errors(include_url=False)]
            missing = next((fault for fault in faults if fault[1] == "missing_field"), None)
            if missing:
                return Verdict({}, [], missing)
            refused = {fault[0] for fault in faults}
            fitting = {name: self._bring(name, value) for name, value in known.items() if name not in refused}
            return Verdict(fitting | kept, faults, None, dropped)
        fitting = {name: getattr(checked, key) for key, name in self._names.items() if name in known}
        return Verdict(fitting | kept, [], None, dropped)

    def _bring(self, name: str, value: FieldValue) -> FieldValue:
        kind = self._ranges[name].kind
        return kind(value) if kind in (float, int) else value

    def _fault(self, error: Any) -> tuple[str, str, str]:
        name = str(error["loc"][0])
        return name, _CODES.get(error["type"], "type_conflict"), f"{name}: {self._say(name, error)}"

    def _say(self, name: str, error: Any) -> str:
        """Say what is wrong with a value, for the person who mends the device or its type."""
        given, limits = error["input"], error.get("ctx", {})
        for limit, say in _SENTENCES.items():
            if limit in limits:
                return say(given, limits[limit])
        if error["type"] in _ABSENT:
            return _ABSENT[error["type"]]
        kind = _KINDS.get(type(given), type(given).__name__)
        return f"the device type says {self.spec.fields[name].type}, this one is {kind}"


def build_model(spec: DeviceType) -> type[BaseModel]:
    """Build the pydantic model of a device type's readings: members by their field names as aliases."""
    extra: Any = "forbid" if spec.unknown_fields == "quarantine" else "ignore"
    members: dict[str, Any] = {}
    for position, (name, field) in enumerate(spec.fields.items()):
        default = ... if field.required else None
        members[f"f{position}"] = (_annotation(field), Field(default, alias=name, description=field.description))
    config = ConfigDict(extra=extra, frozen=True, title=f"{spec.name} v{spec.version}")
    return create_model(f"Reading_{spec.name}", __config__=config, **members)


def _annotation(field: FieldSpec) -> Any:
    bounds, choice = Field(ge=field.min, le=field.max), AfterValidator(partial(_to_choice, field.choices))
    if field.type == "float":
        return Annotated[float, Strict(), bounds, choice]
    if field.type == "int":
        whole = Field(ge=INT64_MIN, le=UINT64_MAX)
        return Annotated[int, Strict(), whole, bounds, choice, BeforeValidator(_to_int)]
    if field.type == "bool":
        return StrictBool
    return Annotated[StrictStr, Field(max_length=field.max_length), choice]


def _to_choice(choices: Sequence[Any] | None, value: Any) -> Any:
    if choices is not None and value not in choices:
        raise PydanticCustomError("not_a_choice", "not one of the choices", {"choices": choices})
    return value


def _to_int(value: Any) -> Any:
    return int(value) if type(value) is float and _is_whole(value) else value


def _is_whole(value: float) -> bool:
    return value.is_integer() and -EXACT_BELOW < value < EXACT_BELOW


class _Range(NamedTuple):
    kind: type
    is_bounded: bool
    is_slow: bool  # only the model judges it
    low: float
    high: float

    @classmethod
    def of(cls, field: FieldSpec) -> _Range:
        kind: type = {"float": float, "int": int, "bool": bool, "string": str}[field.type]
        is_bounded = field.type in ("float", "int") and (field.min is not None or field.max is not None)
        low = field.min if field.min is not None else float("-inf")
        high = field.max if field.max is not None else float("inf")
        is_slow = field.choices is not None or field.max_length is not None
        return cls(kind, is_bounded, is_slow, low, high)


UNTYPED = Rules.of(None)
