"""The registry's verbs for device types. Knows no HTTP and no SQL."""

from __future__ import annotations

from typing import Protocol

from devices.rows import Who
from wire.devices import DeviceType, DeviceTypeSpec
from wire.errors import NotFound
from wire.topics import is_device_id


class TypeRows(Protocol):
    """Where device types are kept; see `devices.types.store.TypeStore`."""

    def list(self) -> list[DeviceType]: ...
    def find(self, name: str) -> DeviceType: ...
    def put(self, name: str, spec: DeviceTypeSpec, who: Who, *, is_new: bool) -> tuple[DeviceType, bool]: ...
    def remove(self, name: str, who: Who) -> None: ...


class DeviceTypes:
    """Device types; thread-safe."""

    def __init__(self, types: TypeRows) -> None:
        self._types = types

    def list(self) -> list[DeviceType]:
        """Give all device types in order of their names."""
        return self._types.list()

    def find(self, name: str) -> DeviceType:
        """Give one device type.

        Raises:
            NotFound: no such type.
        """
        return self._types.find(_demand_name(name))

    def create(self, name: str, spec: DeviceTypeSpec, who: Who) -> DeviceType:
        """Create a device type.

        Raises:
            Conflict: it exists.
        """
        return self._types.put(name, spec, who, is_new=True)[0]

    def put(self, name: str, spec: DeviceTypeSpec, who: Who) -> tuple[DeviceType, bool]:
        """Create or replace a device type; tell whether it was created.

        Raises:
            NotFound: the name is not legal.
        """
        return self._types.put(_demand_name(name), spec, who, is_new=False)

    def remove(self, name: str, who: Who) -> None:
        """Delete a device type.

        Raises:
            NotFound: no such type.
            Conflict: a device has it.
        """
        self._types.remove(_demand_name(name), who)


def _demand_name(name: str) -> str:
    if not is_device_id(name):  # the grammar of names is that of device ids
        raise NotFound(f"no device type {name[:80]!r}", code="type_not_found")
    return name
