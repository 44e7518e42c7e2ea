"""Device types: the only SQL about them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, select, update

from devices.database.engine import Database
from devices.database.tables import DEVICE_TYPES, DEVICES
from devices.rows import Deed, Who
from wire.devices import TENANT, DeviceType, DeviceTypeSpec
from wire.errors import Conflict, NotFound


class TypeStore:
    """Device types; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[DeviceType]:
        """Give all device types in order of their names."""
        query = select(DEVICE_TYPES).where(DEVICE_TYPES.c.tenant == TENANT).order_by(DEVICE_TYPES.c.name)
        with self._database.read() as connection:
            return [to_type(row) for row in connection.execute(query).mappings()]

    def find(self, name: str) -> DeviceType:
        """Give one device type.

        Raises:
            NotFound: no such type.
        """
        with self._database.read() as connection:
            row = connection.execute(select(DEVICE_TYPES).where(_is(name))).mappings().first()
        if row is None:
            raise NotFound(f"no device type {name!r}", code="type_not_found")
        return to_type(row)

    def put(self, name: str, spec: DeviceTypeSpec, who: Who, *, is_new: bool) -> tuple[DeviceType, bool]:
        """Create or replace a type; one that says the same already keeps its version. Tell whether it was created.

        Raises:
            Conflict: it exists, and `is_new` says it must not.
        """
        text = spec.model_dump_json()
        with self._database.write() as transaction:
            row = transaction.execute(select(DEVICE_TYPES).where(_is(name))).mappings().first()
            if row is not None and is_new:
                raise Conflict(f"device type {name} exists already", code="type_exists", fields=["name"])
            if row is not None and row["spec"] == text:
                return to_type(row), False
            version = row["version"] + 1 if row is not None else 1
            values = {"version": version, "spec": text}
            if row is None:
                transaction.execute(insert(DEVICE_TYPES).values(tenant=TENANT, name=name, **values))
            else:
                transaction.execute(update(DEVICE_TYPES).where(_is(name)).values(**values))
            transaction.changed("type", [name])
            transaction.audit([Deed(who, "type.create" if row is None else "type.update", name, {"version": version})])
        return DeviceType(name=name, version=version, **spec.model_dump()), row is None

    def remove(self, name: str, who: Who) -> None:
        """Delete a type that no device has.

        Raises:
            NotFound: no such type.
            Conflict: a device has it.
        """
        with self._database.write() as transaction:
            wearer = select(DEVICES.c.id).where(DEVICES.c.tenant == TENANT, DEVICES.c.type == name).limit(1)
            device_id = transaction.execute(wearer).scalar()
            if not transaction.execute(delete(DEVICE_TYPES).where(_is(name))).rowcount:
                raise NotFound(f"no device type {name!r}", code="type_not_found")
            if device_id is not None:
                raise Conflict(f"device type {name} is in use, for one by {device_id}", code="type_in_use")
            transaction.changed("type", [name])
            transaction.audit([Deed(who, "type.delete", name)])


def _is(name: str) -> ColumnElement[bool]:
    return and_(DEVICE_TYPES.c.tenant == TENANT, DEVICE_TYPES.c.name == name)


def to_type(row: Any) -> DeviceType:
    """Read a row of DEVICE_TYPES."""
    spec = DeviceTypeSpec.model_validate_json(row["spec"])
    return DeviceType(name=row["name"], version=row["version"], **spec.model_dump())
