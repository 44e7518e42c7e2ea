"""Types from elsewhere and to elsewhere: JSON Schema, and the ones that come with the platform."""

from __future__ import annotations

from typing import Any, NamedTuple

from devices.rows import Who
from devices.types import ready
from devices.types.json_schema import from_schema, to_schema
from devices.types.service import DeviceTypes
from wire.errors import Conflict, NotFound
from wire.schemas import Imported, Installed, ReadyType, TypeDraft


class Schema(NamedTuple):
    """A JSON Schema to import; `is_partial`: what can be no field of it is left out, not refused."""

    content: dict[str, Any]
    is_partial: bool = False


class Exchange:
    """Imports, exports and installs types; thread-safe."""

    def __init__(self, types: DeviceTypes) -> None:
        self._types = types

    def export(self, tenant: str, name: str, number: int | None) -> dict[str, Any]:
        """Give a version, or the one in force, as JSON Schema.

        Raises:
            NotFound: no such type or version.
        """
        if number is None:
            number = self._types.find(tenant, name).version
        return to_schema(name, number, self._types.version(tenant, name, number).spec)

    def take(self, tenant: str, name: str, schema: Schema, who: Who, *, activate: bool) -> Imported:
        """Make a version of a JSON Schema, a draft unless it is to be in force at once.

        Raises:
            NotFound: the name is not legal.
            Unprocessable: no type can be made of it.
        """
        spec, ignored = from_schema(schema.content, is_partial=schema.is_partial)
        made = self._types.draft(tenant, name, TypeDraft(spec=spec), who, origin="imported")
        if activate:
            self._types.activate(tenant, name, made.version, who)
            made = self._types.version(tenant, name, made.version)
        return Imported(version=made, ignored=ignored)

    def list_ready(self, tenant: str) -> list[ReadyType]:
        """Give the types that come with the platform, and which of them are in force."""
        present = {kind.name for kind in self._types.list(tenant)}
        return [
            ReadyType(name=name, description=spec.description, fields=list(spec.fields), installed=name in present)
            for name, spec in ready.read_all().items()
        ]

    def install(self, tenant: str, names: list[str], who: Who) -> Installed:
        """Put shipped types in force; those whose names are taken stay as they are.

        Raises:
            NotFound: one of the names is none of theirs; nothing is installed.
        """
        shipped = ready.read_all()
        for name in names:
            if name not in shipped:
                raise NotFound(
                    f"no type {name[:80]!r} comes with the platform", code="type_not_found", fields=["names"]
                )
        done = Installed(installed=[], present=[])
        for name in dict.fromkeys(names):
            try:
                self._types.create(tenant, name, shipped[name], who)
                done.installed.append(name)
            except Conflict:
                done.present.append(name)
        return done
