"""The catalog as the reader sees it: which series a query means, in order, and what their fields are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import msgspec

from series.embedded import latest
from series.embedded.catalog import Key, columns_of, decode_types, table_of
from series.embedded.sql import select
from wire.errors import BadRequest

CHUNK = 1_000  # series read at once
MAX_DEVICES = 30_000  # SQLite binds at most 32,766 values


@dataclass(frozen=True, slots=True)
class Entry:
    """A series as a query needs it; `rank` is its place in the order by device, measurement, tags."""

    sid: int
    rank: int
    key: Key
    tags: dict[str, str]
    types: dict[int, int]  # column number -> type code

    @property
    def device(self) -> str:
        """The device it belongs to."""
        return self.key[1]


@dataclass(frozen=True, slots=True)
class Group:
    """The chosen series of one measurement, and the numbers of the chosen fields."""

    table: int
    own_columns: int  # numbers from this one on live in `extra`
    numbers: dict[str, int]
    entries: list[Entry]


class Types:
    """Unpacked field types, shared by the series that have the same."""

    def __init__(self) -> None:
        self._known: dict[bytes, dict[int, int]] = {}

    def unpack(self, packed: bytes) -> dict[int, int]:
        known = self._known.get(packed)
        if known is None:
            known = self._known[packed] = decode_types(packed)
        return known


def choose(
    catalog: apsw.Connection,
    tenant: str,
    devices: Sequence[str],
    measurement: str | None,
    fields: Sequence[str],
) -> list[Group]:
    """Give the series that a query means, by measurement; those without any of the fields are left out."""
    clauses, bindings = _where(tenant, devices)
    if measurement is not None:
        clauses.append("measurement=?")
        bindings.append(measurement)
    rows = select(
        catalog,
        "SELECT sid, device, measurement, tags, measurement_id, types FROM series "  # noqa: S608 - constants of ours
        f"WHERE {' AND '.join(clauses)} ORDER BY device, measurement, tags",
        bindings,
    )
    groups: dict[int, Group] = {}
    types = Types()
    for rank, (sid, device, name, tags, measurement_id, packed) in enumerate(rows):
        group = groups.get(measurement_id)
        if group is None:
            numbers = _numbers(catalog, measurement_id, fields)
            group = Group(table_of(measurement_id), columns_of(measurement_id), numbers, [])
            groups[measurement_id] = group
        if group.numbers:
            key = (tenant, device, name, tags)
            group.entries.append(Entry(sid, rank, key, decode_tags(tags), types.unpack(packed)))
    return [group for group in groups.values() if group.entries]


def walk_latest(
    catalog: apsw.Connection,
    tenant: str,
    devices: Sequence[str],
    after: Key | None,
) -> Iterator[tuple[Key, list[latest.Group]]]:
    """Give the latest values of series after a key, in order; stop any time."""
    while True:
        clauses, bindings = _where(tenant, devices)
        if after is not None:
            clauses.append("(device, measurement, tags) > (?,?,?)")
            bindings += after[1:]
        rows = list(
            select(
                catalog,
                "SELECT device, measurement, tags, groups FROM series JOIN latest USING (sid) "  # noqa: S608 - constants of ours
                f"WHERE {' AND '.join(clauses)} ORDER BY device, measurement, tags LIMIT {CHUNK}",
                bindings,
            )
        )
        for device, measurement, tags, packed in rows:
            after = (tenant, device, measurement, tags)
            yield (tenant, device, measurement, tags), latest.unpack(packed)
        if len(rows) < CHUNK:
            return


def decode_tags(text: str) -> dict[str, str]:
    """Undo `catalog.encode_tags`."""
    return {} if not text else msgspec.json.decode(text, type=dict[str, str])


def _where(tenant: str, devices: Sequence[str]) -> tuple[list[str], list[Any]]:
    if not devices:
        return ["tenant=?"], [tenant]
    if len(devices) > MAX_DEVICES:
        raise BadRequest(f"the query names {len(devices)} devices, limit {MAX_DEVICES}")
    return ["tenant=?", f"device IN ({','.join('?' * len(devices))})"], [tenant, *devices]


def _numbers(catalog: apsw.Connection, measurement_id: int, fields: Sequence[str]) -> dict[str, int]:
    rows = select(catalog, "SELECT field, number FROM columns WHERE measurement=? ORDER BY number", (measurement_id,))
    wanted = set(fields)
    return {name: number for name, number in rows if not wanted or name in wanted}
