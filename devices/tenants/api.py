"""Routes of tenants, for the platform only. HTTP in and out, no rules."""

from __future__ import annotations

from chassis.web import Api, Call
from devices.api import DEVICE, who
from devices.tenants.service import Tenants
from wire.tenants import DeviceMove, TenantCreate, TenantPatch, TenantView

ONE = "/v1/tenants/<tenant>"


def add_routes(api: Api, tenants: Tenants) -> None:
    """Declare the routes."""
    _add_tenants(api, tenants)
    _add_deeds(api, tenants)


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
