"""Which field of which device an entity of Home Assistant shows: told by its topic, and by where in the message it is.

Templates are code of strangers: none is evaluated. Only those that name one member of the message are understood.
"""

from __future__ import annotations

import re

from ingest.protocols.esphome import decoder as esphome
from ingest.protocols.flatten import segment
from ingest.protocols.homie import topics as homie
from ingest.protocols.scalar import Place
from ingest.protocols.shelly import decoder as shelly
from ingest.protocols.tasmota import decoder as tasmota
from ingest.protocols.zigbee2mqtt import decoder as zigbee2mqtt

Path = tuple[str, ...]  # of a member in a message; empty: the message is the value
MAX_TEMPLATE = 256
ZIGBEE2MQTT = "zigbee2mqtt"
OWN = re.compile(r"devices/([^/]+)/telemetry(?:/json)?")
_STEP = r"(?:\.[A-Za-z_]\w*|\[\d{1,4}\]|\['[^'\\\]]+'\]|\[\"[^\"\\\]]+\"\])"
_KEPT = r"(?:\s*\|\s*(?:is_defined|float|int|round(?:\(\s*\d\s*\))?)(?:\(\s*0?\s*\))?)*"  # filters that change no unit
_SIMPLE = re.compile(rf"\{{\{{-?\s*value_json({_STEP}+){_KEPT}\s*-?\}}\}}", re.ASCII)
_WHOLE = re.compile(rf"\{{\{{-?\s*value{_KEPT}\s*-?\}}\}}", re.ASCII)
_PARTS = re.compile(r"\.([A-Za-z_]\w*)|\[(\d{1,4})\]|\['([^']+)'\]|\[\"([^\"]+)\"\]", re.ASCII)


def path_of(template: str) -> Path | None:
    """Give the member that a template shows; None: it does more than that."""
    text = template.strip()
    if not text or _WHOLE.fullmatch(text[:MAX_TEMPLATE]):
        return ()
    match = _SIMPLE.fullmatch(text) if len(text) <= MAX_TEMPLATE else None
    if match is None:
        return None
    return tuple(next(part for part in parts if part) for parts in _PARTS.findall(match[1]))


def find(topic: str, path: Path, origin: str) -> Place | None:
    """Give the place of what is shown; None: the topic is of no protocol that is known here.

    `origin` is the name of the program that says so, in lower case: Zigbee2MQTT's base topic is free.
    """
    if origin == ZIGBEE2MQTT or f"{ZIGBEE2MQTT}/" in topic:
        levels = zigbee2mqtt.below_base(topic)
        return _at("zigbee", path, zigbee2mqtt.name_of("/".join(levels))) if levels else None
    head, _, last = topic.rpartition("/")
    if last in ("SENSOR", "STATE"):
        name = tasmota.name_of(topic)
        return _at("tasmota", ("state", *path) if path and last == "STATE" else path, name) if name else None
    if own := OWN.fullmatch(topic):
        return _at("telemetry", path, f"headwater:{own[1]}")
    if head.endswith("/status") or topic.endswith(shelly.NOTIFICATIONS):
        return _of_shelly(topic, path)
    found = esphome.find(topic)
    if found is not None:
        return found.place if not path else _at(esphome.MEASUREMENT, path, found.place.device, found.place.field)
    return homie.find(topic) if not path else None


def _of_shelly(topic: str, path: Path) -> Place | None:
    if topic.endswith(shelly.NOTIFICATIONS):
        prefix, shown = topic.removesuffix(shelly.NOTIFICATIONS), path[1:] if path[:1] == ("params",) else ()
    else:
        head, _, component = topic.rpartition("/")
        prefix, shown = head.removesuffix("/status"), (component, *path) if path else ()
    named = (shelly.named(shown[0]), *shown[1:]) if shown else ()
    return _at("shelly", named, f"shelly:{shelly.id_of(prefix)}")


def _at(measurement: str, path: Path, device: str | None, before: str = "") -> Place | None:
    """Give the place of a member, named as ingestion flattens it."""
    parts = [segment(part) for part in path]
    if not parts or not all(parts):
        return None
    return Place(measurement, ".".join([before, *parts] if before else parts), device)
