"""The newest value of every field of a series: groups of one time each, newest first. Pure; knows no files."""

from __future__ import annotations

import msgspec

from wire.points import FieldValue

Group = tuple[int, dict[str, FieldValue]]  # time, fields that are newest at that time

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[int, dict[str, FieldValue]]])


def move(groups: list[Group], time_ns: int, fields: dict[str, FieldValue]) -> list[Group]:
    """Take in the fields of a point; gives `groups` itself when none of them is as new.

    A value of the same time replaces: it is a correction, and the last write wins.
    """
    if not groups or (len(groups) == 1 and time_ns >= groups[0][0] and groups[0][1].keys() <= fields.keys()):
        return [(time_ns, fields)]
    newest = {name: time for time, held in groups for name in held}
    taken = {name: value for name, value in fields.items() if newest.get(name, time_ns) <= time_ns}
    if not taken:
        return groups
    moved: dict[int, dict[str, FieldValue]] = {}
    for time, held in groups:
        left = {name: value for name, value in held.items() if name not in taken}
        if left:
            moved[time] = left
    moved.setdefault(time_ns, {}).update(taken)
    return sorted(moved.items(), key=lambda group: -group[0])


def pack(groups: list[Group]) -> bytes:
    """Encode for the catalog; every type keeps its exact value."""
    return _encoder.encode(groups)


def unpack(packed: bytes) -> list[Group]:
    """Undo `pack`."""
    return _decoder.decode(packed)
