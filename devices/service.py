"""The registry's verbs for devices and their credentials. Knows no HTTP and no SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from devices import credentials
from devices.rows import CredentialRow, Deed, DeviceFilter, NewDevice, Who
from wire import clock
from wire.clock import NS_PER_S
from wire.descriptions import FieldDescription
from wire.errors import Conflict, NotFound, Unprocessable
from wire.registry import (
    CredentialCreate,
    CredentialView,
    DeviceCreate,
    DeviceCreated,
    DeviceDetail,
    DevicePatch,
    DeviceView,
    IssuedCredential,
)
from wire.topics import is_device_id

Change = Callable[[DeviceView], DeviceView]
MAX_TAGS, MAX_ATTRIBUTES = 32, 64  # as wire.devices.Tags and Attributes


class DeviceRows(Protocol):
    """Where devices are kept; see `devices.store.DeviceStore`."""

    def add(self, devices: Sequence[NewDevice], who: Who, action: str) -> None: ...
    def find(self, tenant: str, device_id: str) -> DeviceView: ...
    def detail(self, tenant: str, device_id: str) -> tuple[DeviceDetail, bool]: ...
    def search(self, tenant: str, wanted: DeviceFilter) -> list[DeviceView]: ...
    def update(self, device_id: str, change: Change, deed: Deed) -> DeviceView: ...
    def retire(self, device_id: str, who: Who) -> DeviceView: ...
    def remove(self, device_id: str, who: Who) -> None: ...


class CredentialRows(Protocol):
    """Where credentials are kept; see `devices.store.CredentialStore`."""

    def list(self, tenant: str, device_id: str) -> list[CredentialView]: ...
    def add(self, new: CredentialRow, who: Who) -> None: ...
    def rotate(self, new: CredentialRow, old_until_ns: int, who: Who) -> None: ...
    def remove(self, device_id: str, credential_id: str, who: Who) -> None: ...


class DescriptionRows(Protocol):
    """Where is kept what devices told of their fields; see `devices.descriptions.store.DescriptionStore`."""

    def of(self, tenant: str, devices: Sequence[str]) -> Mapping[str, list[FieldDescription]]: ...


class Registry:
    """Devices and their credentials; thread-safe."""

    def __init__(self, devices: DeviceRows, credential_rows: CredentialRows, descriptions: DescriptionRows) -> None:
        self._devices = devices
        self._credentials = credential_rows
        self._descriptions = descriptions

    def register(self, wanted: DeviceCreate, who: Who) -> DeviceCreated:
        """Register a device and issue its first credential.

        Raises:
            Conflict: the id is taken.
        """
        issued, row = credentials.issue(wanted.id, clock.now_ns(), CredentialCreate())
        device = NewDevice(wanted.id, wanted.type, wanted.tags, wanted.gateway, row, attributes=wanted.attributes)
        self._devices.add([device], who, "device.create")
        return DeviceCreated(**dict(self._devices.find(who.tenant, wanted.id)), credential=issued)

    def find(self, tenant: str, device_id: str) -> DeviceDetail:
        """Give a device with its credentials and its gateway.

        Raises:
            NotFound: no such device.
        """
        _demand_id(device_id)
        detail, is_described = self._devices.detail(tenant, device_id)
        if not is_described:
            return detail
        told = self._descriptions.of(tenant, [device_id]).get(device_id, [])
        return detail.model_copy(update={"described": told})

    def search(self, tenant: str, wanted: DeviceFilter) -> list[DeviceView]:
        """List devices of a tenant in order of their ids."""
        return self._devices.search(tenant, wanted)

    def change(self, device_id: str, patch: DevicePatch, who: Who) -> DeviceView:
        """Change the given members of a device.

        Raises:
            NotFound: no such device.
            Conflict: it speaks for children and should be no gateway, or is a child and should be one.
        """
        given = patch.model_dump(exclude_unset=True)

        def change(device: DeviceView) -> DeviceView:
            tags = _merged(device.tags, given.get("tags", {}), "tags", MAX_TAGS)
            attributes = _merged(device.attributes, given.get("attributes", {}), "attributes", MAX_ATTRIBUTES)
            return device.model_copy(update=given | {"tags": tags, "attributes": attributes})

        return self._update(device_id, change, Deed(who, "device.update", device_id))

    def disable(self, device_id: str, who: Who) -> DeviceView:
        """Refuse a device from now on, at the broker and over HTTP; its data and credentials stay.

        Raises:
            NotFound: no such device.
            Conflict: it is retired.
        """
        return self._update(device_id, _disabled, Deed(who, "device.disable", device_id))

    def enable(self, device_id: str, who: Who) -> DeviceView:
        """Take a disabled device again.

        Raises:
            NotFound: no such device.
            Conflict: it is retired.
        """
        return self._update(device_id, _enabled, Deed(who, "device.enable", device_id))

    def retire(self, device_id: str, who: Who) -> DeviceView:
        """Take a device out of service for good: its credentials are deleted, its data and its id stay.

        Raises:
            NotFound: no such device.
        """
        _demand_id(device_id)
        return self._devices.retire(device_id, who)

    def remove(self, device_id: str, who: Who) -> None:
        """Delete a device and its credentials; its points stay until they are erased in the store.

        Raises:
            NotFound: no such device.
        """
        _demand_id(device_id)
        self._devices.remove(device_id, who)

    def list_credentials(self, tenant: str, device_id: str) -> list[CredentialView]:
        """Give a device's credentials without secrets.

        Raises:
            NotFound: no such device.
        """
        self._find(tenant, device_id)
        return self._credentials.list(tenant, device_id)

    def add_credential(self, device_id: str, wanted: CredentialCreate, who: Who) -> IssuedCredential:
        """Issue a further credential.

        Raises:
            NotFound: no such device.
            Conflict: it has too many, or is retired.
        """
        _demand_service(self._find(who.tenant, device_id))
        issued, row = credentials.issue(device_id, clock.now_ns(), wanted)
        self._credentials.add(row, who)
        return issued

    def rotate_credential(self, device_id: str, overlap_s: float, who: Who) -> IssuedCredential:
        """Issue a new credential; the others still work for `overlap_s`.

        Raises:
            NotFound: no such device.
            Conflict: it is retired.
        """
        _demand_service(self._find(who.tenant, device_id))
        now_ns = clock.now_ns()
        issued, row = credentials.issue(device_id, now_ns, CredentialCreate())
        self._credentials.rotate(row, now_ns + int(overlap_s * NS_PER_S), who)
        return issued

    def revoke_credential(self, device_id: str, credential_id: str, who: Who) -> None:
        """Revoke one credential; without any, a device can do nothing.

        Raises:
            NotFound: no such device or credential.
        """
        self._find(who.tenant, device_id)
        self._credentials.remove(device_id, _plain(credential_id), who)

    def _find(self, tenant: str, device_id: str) -> DeviceView:
        _demand_id(device_id)
        return self._devices.find(tenant, device_id)

    def _update(self, device_id: str, change: Change, deed: Deed) -> DeviceView:
        _demand_id(device_id)
        return self._devices.update(device_id, change, deed)


def _disabled(device: DeviceView) -> DeviceView:
    _demand_service(device)
    return device.model_copy(update={"state": "disabled"})


def _enabled(device: DeviceView) -> DeviceView:
    _demand_service(device)
    return device.model_copy(update={"state": "active" if device.last_seen else "registered"})


def _demand_service(device: DeviceView) -> None:
    if device.state == "retired":
        raise Conflict(f"device {device.id} is retired, which is for good", code="device_retired")


def _demand_id(device_id: str) -> None:
    if not is_device_id(device_id):
        raise NotFound(f"no device {device_id[:80]!r}", code="device_not_found")


def _merged(old: Mapping[str, Any], given: Mapping[str, Any], named: str, limit: int) -> dict[str, Any]:
    """Merge a patch (RFC 7396) into tags or attributes.

    Raises:
        Unprocessable: they are more than the limit then.
    """
    merged = {key: value for key, value in {**old, **given}.items() if value is not None}
    if len(merged) > limit:
        raise Unprocessable(f"a device has at most {limit} {named}, not {len(merged)}", fields=[named])
    return merged


def _plain(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ""
