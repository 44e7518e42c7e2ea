"""Routes of what tenants, their types and their devices used. HTTP in and out, no rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import Field

from chassis.web import Api, Call
from devices.api import DEVICE
from devices.tenants.service import Tenants
from devices.tenants.usage import DEVICE_DAYS, KEPT_DAYS, TYPE_DAYS
from wire import clock
from wire.devices import Model
from wire.tenants import TenantList, TenantUsage, TenantView
from wire.usage import (
    DeviceDay,
    DeviceDays,
    DeviceUsage,
    DeviceUsages,
    TypeUsage,
    TypeUsages,
    UsageDay,
    UsageDays,
    UsageOrder,
    UsageReport,
    Used,
)


class DaysQuery(Model):
    """How many days, today among them."""

    days: Annotated[int, Field(ge=1, le=KEPT_DAYS)] = 30


class TypesQuery(Model):
    """How many days, and what the types are ordered by."""

    days: Annotated[int, Field(ge=1, le=TYPE_DAYS)] = TYPE_DAYS
    order: UsageOrder = "messages"


class DevicesQuery(Model):
    """How many days, how many devices, and what they are ordered by."""

    days: Annotated[int, Field(ge=1, le=DEVICE_DAYS)] = 1
    order: UsageOrder = "messages"
    limit: Annotated[int, Field(ge=1, le=1_000)] = 20


class Usage(Protocol):
    """What was used; see `devices.tenants.usage.UsageStore`."""

    def add(self, report: UsageReport) -> None: ...
    def used(self, now_ns: int, tenant: str | None = None) -> Mapping[str, Used]: ...
    def days(self, now_ns: int, tenant: str, count: int) -> Sequence[UsageDay]: ...
    def types(self, now_ns: int, tenant: str, count: int, order: str) -> Sequence[TypeUsage]: ...
    def devices(self, now_ns: int, tenant: str, count: int, order: str, limit: int) -> Sequence[DeviceUsage]: ...
    def of_device(self, now_ns: int, tenant: str, device: str) -> Sequence[DeviceDay]: ...


class Devices(Protocol):
    """Knows devices; see `devices.store.DeviceStore`."""

    def find(self, tenant: str, device_id: str) -> object: ...


def add_routes(api: Api, tenants: Tenants, usage: Usage, devices: Devices) -> None:
    """Declare the routes."""
    _add_tenants(api, tenants, usage)
    _add_shares(api, usage, devices)

    @api.route("POST", "/internal/usage", "service", callers=("ingest", "dashboard"), body=UsageReport)
    def note_usage(call: Call) -> None:
        """Add what was used."""
        usage.add(call.body)


def _add_tenants(api: Api, tenants: Tenants, usage: Usage) -> None:
    def with_usage(view: TenantView) -> TenantUsage:
        return _joined(view, usage.used(clock.now_ns(), view.id))

    @api.route("GET", "/v1/tenants", "platform", answers={200: TenantList})
    def list_tenants(_call: Call) -> TenantList:
        """List tenants, how much is in each and what it used."""
        used = usage.used(clock.now_ns())
        return TenantList(items=[_joined(view, used) for view in tenants.list()])

    @api.route("GET", "/v1/tenants/<tenant>", "platform", answers={200: TenantUsage})
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


def _add_shares(api: Api, usage: Usage, devices: Devices) -> None:
    @api.route("GET", "/v1/usage/types", "viewer", query=TypesQuery, answers={200: TypeUsages})
    def show_types(call: Call) -> TypeUsages:
        """Show what the devices of each type sent, most first."""
        asked = call.query
        return TypeUsages(items=list(usage.types(clock.now_ns(), call.actor.tenant, asked.days, asked.order)))

    @api.route("GET", "/v1/usage/devices", "viewer", query=DevicesQuery, answers={200: DeviceUsages})
    def show_devices(call: Call) -> DeviceUsages:
        """Show the devices that sent most."""
        asked = call.query
        most = usage.devices(clock.now_ns(), call.actor.tenant, asked.days, asked.order, asked.limit)
        return DeviceUsages(items=list(most))

    @api.route("GET", DEVICE + "/usage", "viewer", answers={200: DeviceDays})
    def show_device(call: Call) -> DeviceDays:
        """Show what a device sent, day by day."""
        tenant, device = call.actor.tenant, call.path["device_id"]
        devices.find(tenant, device)  # 404 when there is none
        return DeviceDays(items=list(usage.of_device(clock.now_ns(), tenant, device)))


def _joined(view: TenantView, used: Mapping[str, Used]) -> TenantUsage:
    return TenantUsage.model_validate(dict(view) | dict(used[view.id]))
