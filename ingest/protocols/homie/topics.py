"""Topics of the Homie convention (3, 4 and 5): whose they are, and of what. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ingest.protocols.flatten import segment
from ingest.protocols.scalar import Place

MEASUREMENT = "homie"
BASE = "homie"
VERSION_5 = "5"
TOLD = ("set", "$target")  # what a property is told, or is about to become


class Spoken(NamedTuple):
    """A topic taken apart."""

    device: str  # external name
    rest: tuple[str, ...]  # levels below the device

    @property
    def is_value(self) -> bool:
        """Whether it is that of a property's value: node and property."""
        return len(self.rest) == 2 and not any(level.startswith("$") for level in self.rest)  # noqa: PLR2004


def read(topic: str) -> Spoken | None:
    """Take a topic apart; None: it is of no device.

    The base is one level, or several of which one is `homie`; in Homie 5 the level `5` follows it.
    """
    levels = topic.split("/")
    base = levels.index(BASE) if BASE in levels[:-1] else 0
    at = base + (2 if levels[base + 1 : base + 2] == [VERSION_5] else 1)
    device, rest = levels[at : at + 1], tuple(levels[at + 1 :])
    if not device or not device[0] or device[0].startswith("$") or not rest:
        return None
    other = "" if levels[base] == BASE else f"{levels[base]}/"
    return Spoken(f"homie:{other}{device[0]}", rest)


def field_of(node: str, name: str) -> str:
    """Give the field of a property; empty: no field may be called so."""
    parts = segment(node), segment(name)
    return ".".join(parts) if all(parts) else ""


def find(topic: str) -> Place | None:
    """Give the place of a property's value; None: the topic is none of one."""
    spoken = read(topic)
    if spoken is None or not spoken.is_value:
        return None
    return Place(MEASUREMENT, field_of(*spoken.rest), spoken.device)
