"""Routes of tenants, for the platform only. HTTP in and out, no rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import Field

from chassis.web import Api, Call
from devices.api import DEVICE, who
from devices.tenants.service import Tenants
from devices.tenants.usage import KEPT_DAYS
from wire import clock
from wire.devices import Model
from wire.tenants import (
    DeviceMove,
    Spent,
    TenantCreate,
    TenantList,
    TenantPatch,
    TenantUsage,
    TenantView,
    UsageDay,
    UsageDays,
    UsageReport,
    Used,
)

ONE = "/v1/tenants/<tenant>"


class DaysQuery(Model):
    """How many days, today among them."""

    days: Annotated[int, Field(ge=1, le=KEPT_DAYS)] = 30


class Usage(Protocol):
    """What tenants used; see `devices.tenants.usage.UsageStore`."""

    def add(self, spent: Mapping[str, Spent]) -> None: ...
    def used(self, now_ns: int, tenant: str | None = None) -> Mapping[str, Used]: ...
    def days(self, now_ns: int, tenant: str, count: int) -> Sequence[UsageDay]: ...


def add_routes(api: Api, tenants: Tenants, usage: Usage) -> None:
    """Declare the routes."""
    _add_usage(api, tenants, usage)
    _add_tenants(api, tenants)
    _add_deeds(api, tenants)


def _add_usage(api: Api, tenants: Tenants, usage: Usage) -> None:
    def with_usage(view: TenantView) -> TenantUsage:
        return _joined(view, usage.used(clock.now_ns(), view.id))

    @api.route("GET", "/v1/tenants", "platform", answers={200: TenantList})
    def list_tenants(_call: Call) -> TenantList:
        """List tenants, how much is in each and what it used."""
        used = usage.used(clock.now_ns())
        return TenantList(items=[_joined(view, used) for view in tenants.list()])

    @api.route("GET", ONE, "platform", answers={200: TenantUsage})
    def get_tenant(call: Call) -> TenantUsage:
        """Show a tenant."""
        return with_usage(tenants.find(call.path["tenant"]))

    @api.route("GET", "/v1/usage", "viewer", answers={200: TenantUsage})
    def show_usage(call: Call) -> TenantUsage:
        """Show the own tenant: its limits, how many devices and people it has, and what it used."""
        return with_usage(tenants.find(call.actor.tenant))

    @api.route("GET", "/v1/usage/days", "viewer", query=DaysQuery, answers={200: UsageDays})
    def show_days(call: Call) -> UsageDays:
        """Show what the own tenant used, day by day."""
        return UsageDays(items=list(usage.days(clock.now_ns(), call.actor.tenant, call.query.days)))

    @api.route("POST", "/internal/usage", "service", callers=("ingest", "dashboard"), body=UsageReport)
    def note_usage(call: Call) -> None:
        """Add what tenants used."""
        usage.add(call.body.tenants)


def _joined(view: TenantView, used: Mapping[str, Used]) -> TenantUsage:
    return TenantUsage.model_validate(dict(view) | dict(used[view.id]))


def _add_tenants(api: Api, tenants: Tenants) -> None:
    @api.route("POST", "/v1/tenants", "platform", body=TenantCreate, answers={201: TenantView})
    def create_tenant(call: Call) -> TenantView:
        """Make a tenant."""
        return tenants.create(call.body, who(call))

    @api.route("PATCH", ONE, "platform", body=TenantPatch, answers={200: TenantView})
    def patch_tenant(call: Call) -> TenantView:
        """Change a tenant's title or limits; members not given stay."""
        return tenants.change(call.path["tenant"], call.body, who(call))

    @api.route("DELETE", ONE, "platform", answers={204: None})
    def delete_tenant(call: Call) -> None:
        """Delete a tenant without devices, with its people and tokens."""
        tenants.remove(call.path["tenant"], who(call))


def _add_deeds(api: Api, tenants: Tenants) -> None:
    @api.route("POST", ONE + ":suspend", "platform", answers={200: TenantView})
    def suspend_tenant(call: Call) -> TenantView:
        """Refuse a tenant's devices, people and tokens; nothing is deleted."""
        return tenants.suspend(call.path["tenant"], who(call))

    @api.route("POST", ONE + ":resume", "platform", answers={200: TenantView})
    def resume_tenant(call: Call) -> TenantView:
        """Let a suspended tenant go on."""
        return tenants.resume(call.path["tenant"], who(call))

    @api.route("POST", DEVICE + ":move", "platform", body=DeviceMove, answers={204: None})
    def move_device(call: Call) -> None:
        """Give a device to another tenant; what it sent so far stays with the old one."""
        tenants.move(call.path["device_id"], call.body.tenant, who(call))
