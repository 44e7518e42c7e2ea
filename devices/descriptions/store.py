"""What devices told of their fields: the only SQL about it. Thread-safe; each method is one transaction.

It is kept as it was told: by sender, and by the external name that the sender used. Whose it is shows when it is read,
so what is told before a device is registered is not lost, and nobody describes a device that he may not speak for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, and_, delete, func, insert, select

from devices.database.engine import Database, Write
from devices.database.tables import DEVICE_TYPES, DEVICES
from devices.database.tables_descriptions import DESCRIPTIONS
from devices.database.tables_gateways import NAMES
from devices.store import PARAMETERS
from wire.descriptions import MAX_OF_DEVICE, MAX_OF_SENDER, FieldDescription, Told

_D = DESCRIPTIONS.c
_MEANT = and_(NAMES.c.tenant == _D.tenant, NAMES.c.gateway == _D.device, NAMES.c.name == _D.name)
_TYPED = and_(DEVICE_TYPES.c.tenant == DEVICES.c.tenant, DEVICE_TYPES.c.name == DEVICES.c.type)

Fields = dict[tuple[str, str], dict[str, Any]]  # by measurement and field, what was told of it


class DescriptionStore:
    """Descriptions of fields."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tell(self, told: Sequence[Told]) -> int:
        """Note what senders told, if it is new; give how many fields were too many. Unknown senders are passed over."""
        senders = sorted({each.device for each in told})
        surplus = 0
        with self._database.write() as transaction:
            tenants = {}
            for part in _parts(senders):
                rows = transaction.execute(select(DEVICES.c.id, DEVICES.c.tenant).where(DEVICES.c.id.in_(part)))
                tenants.update({row.id: row.tenant for row in rows})
            for sender in senders:
                if sender in tenants:
                    mine = [each for each in told if each.device == sender]
                    surplus += _tell(transaction, tenants[sender], sender, mine)
        return surplus

    def of(self, tenant: str, devices: Sequence[str]) -> dict[str, list[FieldDescription]]:
        """Give by device what was told of its fields, by itself or by who speaks for it; without any, it is absent."""
        found = self._database.ask(lambda connection: _read(connection, tenant, devices))
        return {device: [FieldDescription(**fields[key]) for key in sorted(fields)] for device, fields in found.items()}

    def known(self, tenant: str, devices: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Give the same, and, with an empty measurement, what the devices' types say of unit and description."""
        with self._database.read() as connection:
            found = {device: list(fields.values()) for device, fields in _read(connection, tenant, devices).items()}
            for part in _parts(devices):
                typed = select(DEVICES.c.id, DEVICE_TYPES.c.spec).join(DEVICE_TYPES, _TYPED)
                mine = and_(DEVICES.c.tenant == tenant, DEVICES.c.id.in_(part))
                for device, spec in connection.execute(typed.where(mine)):
                    found.setdefault(device, []).extend(_said_by_type(orjson.loads(spec)))
        return found


def _tell(transaction: Write, tenant: str, sender: str, told: Sequence[Told]) -> int:
    mine = and_(_D.tenant == tenant, _D.device == sender)
    number = transaction.execute(select(func.coalesce(func.sum(_D.number), 0)).where(mine)).scalar_one()
    by_name: defaultdict[str, list[FieldDescription]] = defaultdict(list)
    for each in told:
        by_name[each.name].extend(each.fields)
    old: dict[str, Fields] = {}
    for part in _parts(sorted(by_name)):
        for name, text in transaction.execute(select(_D.name, _D.fields).where(mine, _D.name.in_(part))):
            old[name] = _by_key(orjson.loads(text))
    surplus, rows = 0, list[dict[str, Any]]()
    for name, fields in by_name.items():
        before = old.get(name, {})
        merged, more = _merge(before, fields, min(MAX_OF_DEVICE, len(before) + MAX_OF_SENDER - number))
        surplus += more
        number += len(merged) - len(before)
        if merged != before:
            content = orjson.dumps([merged[key] for key in sorted(merged)]).decode()
            rows.append({"name": name, "fields": content, "number": len(merged)})
    for part in _parts([row["name"] for row in rows]):
        transaction.execute(delete(DESCRIPTIONS).where(mine, _D.name.in_(part)))
    whose = {"tenant": tenant, "device": sender, "updated_ns": transaction.now_ns}
    transaction.execute(insert(DESCRIPTIONS), [whose | row for row in rows])
    return surplus


def _merge(before: Fields, told: Iterable[FieldDescription], most: int) -> tuple[Fields, int]:
    """Add what was told to what is known; give the new state, and how many fields there was no room for."""
    merged, surplus = dict(before), 0
    for each in told:
        key = (each.measurement, each.field)
        if key not in merged and len(merged) >= most:
            surplus += 1
        else:
            merged[key] = {**merged.get(key, {}), **each.model_dump(exclude_defaults=True)}
    return merged, surplus


def _read(connection: Connection, tenant: str, devices: Sequence[str]) -> dict[str, Fields]:
    """Give by device and field what was told, the newest of each; what a device tells of itself goes first."""
    found: defaultdict[str, Fields] = defaultdict(dict)
    for part in _parts(devices):
        named = select(NAMES.c.device, _D.fields).join(DESCRIPTIONS, _MEANT)
        of_them = and_(NAMES.c.tenant == tenant, NAMES.c.device.in_(part))
        own = select(_D.device, _D.fields).where(_D.tenant == tenant, _D.device.in_(part), _D.name == "")
        for query in (named.where(of_them).order_by(_D.updated_ns), own):
            for device, text in connection.execute(query):
                _add(found[device], _by_key(orjson.loads(text)))
    return found


def _add(fields: Fields, more: Fields) -> None:
    for key, one in more.items():
        fields[key] = {**fields.get(key, {}), **one}


def _by_key(fields: Iterable[dict[str, Any]]) -> Fields:
    return {(one["measurement"], one["field"]): one for one in fields}


def _said_by_type(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    said = []
    for name, field in spec.get("fields", {}).items():
        unit, description = field.get("unit", ""), field.get("description", "")
        if unit or description:
            said.append({"measurement": "", "field": name, "unit": unit, "description": description})
    return said


def _parts(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + PARAMETERS] for start in range(0, len(keys), PARAMETERS))
