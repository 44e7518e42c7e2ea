"""The registry's verbs for device types and their versions. Knows no HTTP and no SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from devices.rows import Who
from devices.types.codecs import demand_runnable
from devices.types.compare import compare, is_compatible
from devices.types.rules import demand_sound
from devices.types.store import NewVersion
from wire import clock
from wire.devices import DeviceType, DeviceTypeSpec
from wire.errors import Conflict, NotFound, Unprocessable
from wire.schemas import TypeDiff, TypeDraft, TypeSummary, TypeVersion, TypeVersionDetail
from wire.topics import is_device_id


class TypeRows(Protocol):
    """Where device types are kept; see `devices.types.store.TypeStore`."""

    def list(self, tenant: str) -> list[DeviceType]: ...
    def summaries(self, tenant: str) -> Sequence[TypeSummary]: ...
    def find(self, tenant: str, name: str) -> DeviceType: ...
    def versions(self, tenant: str, name: str) -> Sequence[TypeVersion]: ...
    def version(self, tenant: str, name: str, number: int) -> TypeVersionDetail: ...
    def put(self, tenant: str, name: str, new: NewVersion, who: Who, *, is_new: bool) -> tuple[DeviceType, bool]: ...
    def draft(self, tenant: str, name: str, new: NewVersion, who: Who) -> TypeVersionDetail: ...
    def activate(self, tenant: str, name: str, number: int, who: Who) -> DeviceType: ...
    def schedule(self, tenant: str, name: str, number: int, due_ns: int | None, who: Who) -> TypeVersionDetail: ...
    def remove(self, tenant: str, name: str, who: Who) -> None: ...


class DeviceTypes:
    """Device types; thread-safe."""

    def __init__(self, types: TypeRows) -> None:
        self._types = types

    def list(self, tenant: str) -> list[DeviceType]:
        """Give all device types in force in order of their names."""
        return self._types.list(tenant)

    def summaries(self, tenant: str) -> Sequence[TypeSummary]:
        """Give all device types briefly, those of which there are only drafts too."""
        return self._types.summaries(tenant)

    def find(self, tenant: str, name: str) -> DeviceType:
        """Give the version of a type that is in force.

        Raises:
            NotFound: no such type.
        """
        return self._types.find(tenant, demand_name(name))

    def versions(self, tenant: str, name: str) -> Sequence[TypeVersion]:
        """Give all versions of a type, newest first.

        Raises:
            NotFound: there never was such a type.
        """
        return self._types.versions(tenant, demand_name(name))

    def version(self, tenant: str, name: str, number: int) -> TypeVersionDetail:
        """Give one version with what it says.

        Raises:
            NotFound: no such version.
        """
        return self._types.version(tenant, demand_name(name), number)

    def one_of(self, tenant: str, name: str, spec: DeviceTypeSpec | None, number: int | None) -> DeviceTypeSpec:
        """Give the spec itself, or that of the version with this number.

        Raises:
            NotFound: no such version.
            Unprocessable: both are given, or none.
        """
        if (spec is None) == (number is None):
            raise Unprocessable("give either spec or version", fields=["spec", "version"])
        if spec is not None:
            return spec
        assert number is not None
        return self.version(tenant, name, number).spec

    def diff(self, tenant: str, name: str, before: int | None, after: int) -> TypeDiff:
        """Compare two versions; `before` None is the version in force.

        Raises:
            NotFound: no such version.
        """
        new = self.version(tenant, name, after)
        if before is None:
            before = self.find(tenant, name).version
        changes = compare(self.version(tenant, name, before).spec, new.spec)
        return TypeDiff(name=name, before=before, after=after, compatible=is_compatible(changes), changes=changes)

    def create(self, tenant: str, name: str, spec: DeviceTypeSpec, who: Who) -> DeviceType:
        """Create a device type.

        Raises:
            Conflict: it exists.
            Unprocessable: it contradicts itself, or its codec cannot run.
        """
        _demand(spec)
        return self._types.put(tenant, name, NewVersion(spec, "put"), who, is_new=True)[0]

    def put(self, tenant: str, name: str, spec: DeviceTypeSpec, who: Who) -> tuple[DeviceType, bool]:
        """Create a device type or put a new version of it in force; tell whether it was created.

        Raises:
            NotFound: the name is not legal.
            Unprocessable: it contradicts itself, or its codec cannot run.
        """
        name = demand_name(name)
        _demand(spec)
        return self._types.put(tenant, name, NewVersion(spec, "put"), who, is_new=False)

    def draft(self, tenant: str, name: str, wanted: TypeDraft, who: Who, origin: str = "draft") -> TypeVersionDetail:
        """Write a version down without putting it in force; the type need not exist.

        Raises:
            NotFound: the name is not legal.
            Unprocessable: it contradicts itself, or its codec cannot run.
        """
        name = demand_name(name)
        _demand(wanted.spec)
        return self._types.draft(tenant, name, NewVersion(wanted.spec, origin, wanted.note), who)

    def activate(self, tenant: str, name: str, number: int, who: Who) -> DeviceType:
        """Put a draft or scheduled version in force.

        Raises:
            NotFound: no such version.
            Conflict: it is in force, or was before.
        """
        return self._types.activate(tenant, demand_name(name), number, who)

    def schedule(self, tenant: str, name: str, number: int, due_ns: int | None, who: Who) -> TypeVersionDetail:
        """Let a draft come into force at a time; None takes that back.

        Raises:
            NotFound: no such version.
            Conflict: it is in force, or was before.
            Unprocessable: the time has passed.
        """
        if due_ns is not None and due_ns <= clock.now_ns():
            raise Unprocessable("the time has passed; without one the version is in force at once", fields=["at"])
        return self._types.schedule(tenant, demand_name(name), number, due_ns, who)

    def roll_back(self, tenant: str, name: str, number: int | None, who: Who) -> DeviceType:
        """Put the content of an earlier version in force, as a new version.

        Raises:
            NotFound: no such version.
            Conflict: there is none before the present one, or it says the same.
        """
        current = self.find(tenant, name)
        if number is None:
            number = self._before(tenant, name)
        old = self.version(tenant, name, number)
        new = NewVersion(old.spec, f"rollback of {number}")
        made, _ = self._types.put(tenant, name, new, who, is_new=False)
        if made.version == current.version:
            raise Conflict(
                f"version {current.version} of {name} says the same as version {number}", code="same_version"
            )
        return made

    def remove(self, tenant: str, name: str, who: Who) -> None:
        """Delete a device type.

        Raises:
            NotFound: no such type.
            Conflict: a device has it.
        """
        self._types.remove(tenant, demand_name(name), who)

    def _before(self, tenant: str, name: str) -> int:
        """Give the version that was in force before the present one."""
        retired = [each for each in self.versions(tenant, name) if each.state == "retired" and each.activated]
        if not retired:
            raise Conflict(f"{name} has had no other version in force", code="no_earlier_version")
        return max(retired, key=lambda each: each.retired or 0).version


def _demand(spec: DeviceTypeSpec) -> None:
    demand_sound(spec)
    demand_runnable(spec)


def demand_name(name: str) -> str:
    """Give the name of a type back.

    Raises:
        NotFound: no type can have it.
    """
    if not is_device_id(name):  # the grammar of names is that of device ids
        raise NotFound(f"no device type {name[:80]!r}", code="type_not_found")
    return name
