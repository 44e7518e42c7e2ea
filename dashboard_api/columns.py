"""The columns of the device list: which there are, which were asked for. Named as by `headwater device list`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NAMES: Mapping[str, str] = {
    "presence": "Presence", "type": "Type", "tags": "Tags", "last_seen": "Last seen",
    "fw": "Firmware", "state": "State", "attributes": "Attributes", "created": "Registered",
}  # fmt: skip
KINDS = ("tag", "attr")
USUAL = ("presence", "type", "tags", "last_seen")
MOST = 12


@dataclass(frozen=True, slots=True)
class Column:
    """One of the device list, beside the device itself."""

    kind: str  # one of NAMES, "tag" or "attr"
    label: str  # of a tag or an attribute: its key

    @property
    def name(self) -> str:
        """Give it as it was asked for."""
        return f"{self.kind}.{self.label}" if self.kind in KINDS else self.kind


@dataclass(frozen=True, slots=True)
class Columns:
    """Those to show, in order, and what of the request names none."""

    shown: Sequence[Column]
    unknown: Sequence[str] = ()

    @property
    def names(self) -> Mapping[str, str]:
        """Give all there are beside tags and attributes, with their titles."""
        return NAMES

    @property
    def kinds(self) -> set[str]:
        """Give which of NAMES are shown."""
        return {column.kind for column in self.shown}

    @property
    def keyed(self) -> str:
        """Give the tags and attributes as they are typed."""
        return " ".join(column.name for column in self.shown if column.kind in KINDS)

    @property
    def asked(self) -> str:
        """Give them for an address; empty for the usual ones."""
        names = tuple(column.name for column in self.shown)
        return "" if names == USUAL else ",".join(names)


def read(given: Sequence[str]) -> Columns:
    """Read what a form sends: names apart by commas or spaces, in one part or several; nothing: the usual ones."""
    names = list(dict.fromkeys(" ".join(given).replace(",", " ").split()))
    shown, unknown = [], []
    for name in names or USUAL:
        kind, _, key = name.partition(".")
        if name in NAMES:
            shown.append(Column(name, NAMES[name]))
        elif kind in KINDS and key:
            shown.append(Column(kind, key))
        else:
            unknown.append(name)
    return Columns(shown[:MOST], unknown)
