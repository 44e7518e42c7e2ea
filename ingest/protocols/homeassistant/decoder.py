"""Discovery messages of Home Assistant to what they tell of fields: never to readings. Pure.

They name entities: a topic, where in its messages the value is, unit, name and device class (Home Assistant's
documentation, "MQTT", "MQTT Discovery"). A gateway tells of what it may speak for, any other sender of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ingest.protocols import objects, parse
from ingest.protocols.base import MAX_FIELDS, Context, Decoded, Description
from ingest.protocols.homeassistant import places
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.scalar import Place

FULL = {  # of the abbreviations those that are used here
    "stat_t": "state_topic", "unit_of_meas": "unit_of_measurement", "dev_cla": "device_class",
    "val_tpl": "value_template", "dev": "device", "cmps": "components", "o": "origin",
    "stat_val_tpl": "state_value_template", "curr_temp_t": "current_temperature_topic",
    "curr_temp_tpl": "current_temperature_template", "temp_unit": "temperature_unit",
}  # fmt: skip
BASE = "~"
_ADDRESS = re.compile(r"zigbee2mqtt_(0x[0-9a-f]{16})", re.ASCII)
MOST = 1e300  # of a bound; none is near
DEGREES = {"C": "°C", "F": "°F"}


def decode(content: bytes, context: Context) -> Decoded:
    """Read a configuration: of one entity, or of all of a device; everything else is no news of fields."""
    topic = objects.own_topic(context)
    if not topic.endswith("/config"):
        return Decoded(is_event=True)
    try:
        value = parse.parse(parse.trim(content))[0]
    except parse.Unreadable as error:
        return unreadable(error)
    if type(value) is not dict:
        return unreadable(parse.Unreadable("bad_structure", "a configuration is a JSON object"))
    described = [told for entity in _entities(_expand(value)) for told in _describe(entity, context)]
    return Decoded(is_event=True, described=described)


def _entities(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the entities of a configuration, each with what is said for all of them."""
    components = config.get("components")
    if type(components) is not dict:
        yield config
        return
    shared = {name: config[name] for name in ("device", "origin", "state_topic", BASE) if name in config}
    for component in list(components.values())[:MAX_FIELDS]:
        if type(component) is dict:
            yield shared | _expand(component)


def _expand(config: dict[str, Any]) -> dict[str, Any]:
    return {FULL.get(name, name): value for name, value in config.items()}


def _describe(entity: dict[str, Any], context: Context) -> Iterator[Description]:
    topic, template, unit = _shown(entity)
    path = places.path_of(template)
    place = places.find(topic, path, _text(_member(entity, "origin", "name")).lower()) if path is not None else None
    if place is None:
        return
    low, high = (_bound(entity.get(name)) for name in ("min", "max"))
    for device in _called(place, entity) if context.is_gateway else (None,):
        yield Description(
            place.field, place.measurement, device, unit=unit,
            label=_text(entity.get("name")) or _text(_member(entity, "device", "name")),
            kind=_text(entity.get("device_class")), low=low, high=high,
        )  # fmt: skip


def _called(place: Place, entity: dict[str, Any]) -> Iterator[str | None]:
    """Give the names that a device may be known by: one of Zigbee2MQTT also by its address."""
    yield place.device
    identifiers = _member(entity, "device", "identifiers") or _member(entity, "device", "ids")
    for each in identifiers[:1] if type(identifiers) is list else (identifiers,):
        match = _ADDRESS.fullmatch(each) if type(each) is str else None
        if match is not None and place.device != f"zigbee:{match[1]}":
            yield f"zigbee:{match[1]}"


def _shown(entity: dict[str, Any]) -> tuple[str, str, str]:
    """Give topic, template and unit of an entity's value; of a thermostat, of the temperature that it measures."""
    named = ("state_topic", "value_template", "unit_of_measurement")
    if "state_topic" not in entity and "current_temperature_topic" in entity:
        named = ("current_temperature_topic", "current_temperature_template", "temperature_unit")
    topic, template, unit = (_text(entity.get(name)) for name in named)
    base = _text(entity.get(BASE))
    if base and topic.startswith(BASE):
        topic = base + topic[1:]
    elif base and topic.endswith(BASE):
        topic = topic[:-1] + base
    return topic, template, DEGREES.get(unit, unit)


def _member(entity: dict[str, Any], name: str, member: str) -> Any:
    value = entity.get(name)
    if type(value) is not dict:
        return None
    return value.get(member)


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _bound(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < MOST else None
