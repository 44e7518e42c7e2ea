"""Sparkplug's topics (Sparkplug 3.0, section 4): which edge node or device says what. Pure."""

from __future__ import annotations

from typing import NamedTuple

ROOT = "spBv1.0"
STATE = "STATE"
OF_NODES = ("NBIRTH", "NDATA", "NDEATH", "NCMD")
OF_DEVICES = ("DBIRTH", "DDATA", "DDEATH", "DCMD")
COMMANDS, DEATHS = ("NCMD", "DCMD"), ("NDEATH", "DDEATH")
SCHEME = "spb:"


class Place(NamedTuple):
    """An edge node, by its external name, or a device of it."""

    node: str
    device: str | None = None


class Spoken(NamedTuple):
    """A topic taken apart: `spBv1.0/{group}/{verb}/{node}[/{device}]`."""

    group: str
    verb: str
    node: str
    device: str | None = None

    @property
    def node_name(self) -> str:
        """The external name of the edge node."""
        return f"{SCHEME}{self.group}/{self.node}"

    @property
    def name(self) -> str:
        """The external name of who speaks: the device, else the node."""
        return self.node_name if self.device is None else f"{self.node_name}/{self.device}"


def read(topic: str) -> Spoken | None:
    """Take a topic apart; None when it is not of a node or a device."""
    levels = topic.split("/")
    if levels[0] != ROOT or not all(levels):
        return None
    match levels[1:]:
        case [group, verb, node] if verb in OF_NODES and group != STATE:
            return Spoken(group, verb, node)
        case [group, verb, node, device] if verb in OF_DEVICES and group != STATE:
            return Spoken(group, verb, node, device)
    return None


def place(name: str) -> Place | None:
    """Take an external name apart; None when it is not one of Sparkplug."""
    levels = name.removeprefix(SCHEME).split("/")
    if not name.startswith(SCHEME) or not all(levels) or len(levels) not in (2, 3):
        return None
    return Place(SCHEME + "/".join(levels[:2]), levels[2] if levels[2:] else None)


def is_state(topic: str) -> bool:
    """Tell whether a topic is that of a host application's state."""
    return topic.startswith(f"{ROOT}/{STATE}/") and topic.count("/") == 2  # noqa: PLR2004 - spBv1.0/STATE/{host}


def command(node_name: str, device: str | None = None) -> str:
    """Give the topic of commands to an edge node, named as `spb:{group}/{node}`, or to one of its devices."""
    group, _, node = node_name.removeprefix(SCHEME).partition("/")
    return f"{ROOT}/{group}/NCMD/{node}" if device is None else f"{ROOT}/{group}/DCMD/{node}/{device}"
