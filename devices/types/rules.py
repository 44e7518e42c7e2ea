"""What a device type must satisfy beyond its form. Each fault names its member, so that an editor can show it there."""

from __future__ import annotations

from collections.abc import Iterator

from wire.devices import AlertDefault, Codec, DeviceTypeSpec, FieldSpec
from wire.errors import Unprocessable

NUMBERS = ("float", "int")
_LIMITS = {"min": NUMBERS, "max": NUMBERS, "choices": (*NUMBERS, "string"), "max_length": ("string",)}
_VALUES = {"float": (float, int), "int": (int,), "bool": (bool,), "string": (str,)}
Fault = tuple[str, str]


def demand_sound(spec: DeviceTypeSpec) -> None:
    """Refuse a spec that contradicts itself.

    Raises:
        Unprocessable: with the members at fault.
    """
    faults = list(_faults(spec))
    if faults:
        sentence = "; ".join(f"{path}: {text}" for path, text in faults[:5])
        raise Unprocessable(sentence, fields=[path for path, _ in faults])


def _faults(spec: DeviceTypeSpec) -> Iterator[Fault]:
    for name, field in spec.fields.items():
        yield from _faults_of_field(f"fields.{name}", field)
    names = [alert.name for alert in spec.alerts]
    for at, alert in enumerate(spec.alerts):
        if alert.name in names[:at]:
            yield f"alerts.{at}.name", "another alert has this name"
        yield from _faults_of_alert(f"alerts.{at}", alert, spec)

    if spec.codec is not None:
        yield from _faults_of_codec(spec.codec)


def _faults_of_codec(codec: Codec) -> Iterator[Fault]:
    if codec.language == "javascript" and not codec.text.strip():
        yield "codec.text", "holds no script"
    if codec.language != "javascript" and codec.text:
        yield "codec.text", f"is not for {codec.language}"


def _faults_of_field(path: str, field: FieldSpec) -> Iterator[Fault]:
    for name, kinds in _LIMITS.items():
        if getattr(field, name) is not None and field.type not in kinds:
            yield f"{path}.{name}", f"is not for {field.type}"
    if field.min is not None and field.max is not None and field.min > field.max:
        yield f"{path}.min", f"{field.min:.15g} is above max {field.max:.15g}"
    if field.choices == []:
        yield f"{path}.choices", "names no value: nothing could be sent"
    odd = [each for each in field.choices or () if type(each) not in _VALUES[field.type]]
    if odd and field.type in _LIMITS["choices"]:
        yield f"{path}.choices", f"{odd[0]!r} is no {field.type}"
    if field.required and field.nullable:
        yield f"{path}.nullable", "a null is no value, so a required field cannot be null"


def _faults_of_alert(path: str, alert: AlertDefault, spec: DeviceTypeSpec) -> Iterator[Fault]:
    if alert.when == "silent":
        if alert.value is not None:
            yield f"{path}.value", "silence has no value"
        if alert.for_s <= 0 and spec.expected_interval_s is None:
            yield f"{path}.for_s", "say how long, or give the type an expected_interval_s"
        return
    field = spec.fields.get(alert.field or "")
    if field is None:
        yield f"{path}.field", "names no field of the type"
        return
    if alert.when != "equals" and field.type not in NUMBERS:
        yield f"{path}.when", f"{alert.when} is for numbers, {alert.field} is {field.type}"
    elif not _fits(alert, field):
        yield f"{path}.value", f"is no {field.type}"


def _fits(alert: AlertDefault, field: FieldSpec) -> bool:
    kinds = _VALUES[field.type] if alert.when == "equals" else (int, float)
    return type(alert.value) in kinds
