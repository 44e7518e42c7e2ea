"""The verbs for tenants. Knows no HTTP and no SQL."""

from __future__ import annotations

from typing import Protocol

from devices.rows import Who
from wire.devices import TENANT
from wire.errors import Conflict, Unprocessable
from wire.tenants import Limits, TenantCreate, TenantPatch, TenantView


class TenantRows(Protocol):
    """Where tenants are kept; see `devices.tenants.store.TenantStore`."""

    def list(self) -> list[TenantView]: ...
    def find(self, tenant: str) -> TenantView: ...
    def add(self, wanted: TenantCreate, who: Who) -> None: ...
    def update(self, tenant: str, patch: TenantPatch, who: Who) -> None: ...
    def set_state(self, tenant: str, state: str, action: str, who: Who) -> None: ...
    def remove(self, tenant: str, who: Who) -> None: ...
    def move(self, device_id: str, target: str, who: Who) -> None: ...


class Tenants:
    """Tenants; thread-safe."""

    def __init__(self, rows: TenantRows, *, is_counted: bool = True) -> None:
        """`is_counted` = the broker tells who is connected."""
        self._rows = rows
        self._is_counted = is_counted

    def list(self) -> list[TenantView]:
        """Give all tenants in order of their ids."""
        return self._rows.list()

    def find(self, tenant: str) -> TenantView:
        """Give one tenant.

        Raises:
            NotFound: no such tenant.
        """
        return self._rows.find(tenant)

    def create(self, wanted: TenantCreate, who: Who) -> TenantView:
        """Make a tenant.

        Raises:
            Conflict: the id is taken, or was.
            Unprocessable: a limit that cannot be held.
        """
        self._demand_countable(wanted.limits)
        self._rows.add(wanted, who)
        return self._rows.find(wanted.id)

    def change(self, tenant: str, patch: TenantPatch, who: Who) -> TenantView:
        """Change the given members.

        Raises:
            NotFound: no such tenant.
            Unprocessable: a limit that cannot be held.
        """
        self._demand_countable(patch.limits)
        self._rows.update(tenant, patch, who)
        return self._rows.find(tenant)

    def _demand_countable(self, limits: Limits | None) -> None:
        if limits is not None and limits.connections is not None and not self._is_counted:
            text = "the broker tells nobody who is connected: limits.connections needs HEADWATER_BROKER_MANAGEMENT"
            raise Unprocessable(text, code="connections_unknown", fields=["limits.connections"])

    def suspend(self, tenant: str, who: Who) -> TenantView:
        """Refuse a tenant's devices, people and tokens from now on; nothing is deleted.

        Raises:
            NotFound: no such tenant.
            Conflict: it is the platform's own.
        """
        _demand_other(tenant)
        self._rows.set_state(tenant, "suspended", "tenant.suspend", who)
        return self._rows.find(tenant)

    def resume(self, tenant: str, who: Who) -> TenantView:
        """Let a suspended tenant go on.

        Raises:
            NotFound: no such tenant.
        """
        self._rows.set_state(tenant, "active", "tenant.resume", who)
        return self._rows.find(tenant)

    def remove(self, tenant: str, who: Who) -> None:
        """Delete a tenant that has no devices.

        Raises:
            NotFound: no such tenant.
            Conflict: it has devices, or is the platform's own.
        """
        _demand_other(tenant)
        self._rows.remove(tenant, who)

    def move(self, device_id: str, target: str, who: Who) -> None:
        """Give a device to another tenant; what it sent so far stays with the old one.

        Raises:
            NotFound: no such device or tenant.
            Conflict: it is there already.
            Forbidden: that tenant has as many devices as it may.
        """
        if target == who.tenant:
            raise Conflict(f"device {device_id[:80]} is in tenant {target} already", code="same_tenant")
        self._rows.move(device_id, target, who)


def _demand_other(tenant: str) -> None:
    if tenant == TENANT:
        raise Conflict(f"tenant {TENANT} is the platform's own and stays", code="home_tenant")
