"""Public routes of devices and their credentials: HTTP in and out, no rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from flask import request
from pydantic import Field

from chassis.web import Api, Call
from devices.query.parser import parse
from devices.query.reach import narrowed
from devices.rows import DeviceFilter, Who
from devices.service import Registry
from wire import clock
from wire.devices import DeviceState, Model, Text
from wire.errors import BadRequest, Forbidden, TooLarge
from wire.registry import (
    CredentialCreate,
    CredentialIssued,
    CredentialList,
    CredentialRotate,
    DeviceCreate,
    DeviceCreated,
    DeviceDetail,
    DevicePage,
    DevicePatch,
    DeviceView,
    QueryText,
)

MAX_LIST = 1_000
_JSON_BYTES = 256 * 1024  # of one JSON body here: far above the largest legal device or type
DEVICE = "/v1/devices/<device_id>"


class DeviceQuery(Model):
    """Which devices to list."""

    q: QueryText = ""
    tag: list[Text] = Field(default=[], max_length=8)
    type: Text | None = None
    state: DeviceState | None = None
    online: bool | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Text = ""


def who(call: Call) -> Who:
    """Name the caller, their address and their tenant for a change and its audit entry."""
    return Who(call.actor.signature, call.remote_ip, call.actor.tenant, call.actor.role)


def demand_all(call: Call, *, is_needed: bool) -> None:
    """Refuse a token for some devices only what gives rights over others: what is a gateway, what is in a group.

    Raises:
        Forbidden: it is such a token.
    """
    if is_needed and call.actor.devices:
        raise Forbidden("a token for some devices only changes no gateways and no groups", code="out_of_scope")


def add_routes(api: Api, registry: Registry) -> None:
    """Declare the routes."""
    _add_devices(api, registry)
    _add_states(api, registry)
    _add_credentials(api, registry)


def _add_devices(api: Api, registry: Registry) -> None:
    @api.route("POST", "/v1/devices", "operator", body=DeviceCreate, answers={201: DeviceCreated})
    def create_device(call: Call) -> DeviceCreated:
        """Register a device; the answer is the only place where its secret is shown."""
        return registry.register(call.body, who(call))

    @api.route(
        "GET",
        "/v1/devices",
        "viewer",
        query=DeviceQuery,
        answers={200: DevicePage},
        reach="narrowed",
        is_on_loop=True,
    )
    def list_devices(call: Call) -> DevicePage:
        """List devices in order of their ids; q finds id, type and tag values."""
        wanted = _to_filter(call.query)
        items = registry.search(call.actor.tenant, replace(wanted, tree=narrowed(call.actor, wanted.tree)))
        is_full = len(items) == call.query.limit
        return DevicePage(items=items, next=items[-1].id if is_full else None)

    @api.route("GET", DEVICE, "viewer", answers={200: DeviceDetail}, is_on_loop=True)
    def get_device(call: Call) -> DeviceDetail:
        """Show a device, its presence and its credentials without secrets."""
        return registry.find(call.actor.tenant, call.path["device_id"])

    @api.route("PATCH", DEVICE, "operator", body=DevicePatch, answers={200: DeviceView}, reach="path", is_on_loop=True)
    def patch_device(call: Call) -> DeviceView:
        """Change type, tags or gateway mark; members not given stay, null removes."""
        demand_all(call, is_needed="gateway" in call.body.model_fields_set)
        return registry.change(call.path["device_id"], call.body, who(call))


def _add_states(api: Api, registry: Registry) -> None:
    @api.route("POST", DEVICE + ":disable", "operator", answers={200: DeviceView}, reach="path")
    def disable_device(call: Call) -> DeviceView:
        """Refuse a device from now on; it is cut off and cannot return."""
        return registry.disable(call.path["device_id"], who(call))

    @api.route("POST", DEVICE + ":enable", "operator", answers={200: DeviceView}, reach="path")
    def enable_device(call: Call) -> DeviceView:
        """Take a disabled device again."""
        return registry.enable(call.path["device_id"], who(call))

    @api.route("POST", DEVICE + ":retire", "operator", answers={200: DeviceView}, reach="path")
    def retire_device(call: Call) -> DeviceView:
        """Take a device out of service for good: its credentials go, its id and data stay."""
        return registry.retire(call.path["device_id"], who(call))


def _add_credentials(api: Api, registry: Registry) -> None:
    @api.route("GET", DEVICE + "/credentials", "viewer", answers={200: CredentialList}, is_on_loop=True)
    def list_credentials(call: Call) -> CredentialList:
        """List a device's credentials without secrets."""
        return CredentialList(items=registry.list_credentials(call.actor.tenant, call.path["device_id"]))

    @api.route(
        "POST",
        DEVICE + "/credentials",
        "operator",
        body=CredentialCreate,
        answers={201: CredentialIssued},
        reach="path",
    )
    def add_credential(call: Call) -> CredentialIssued:
        """Issue a further credential; its secret is shown once."""
        issued = registry.add_credential(call.path["device_id"], call.body, who(call))
        return CredentialIssued(credential=issued)

    @api.route(
        "POST",
        DEVICE + "/credentials:rotate",
        "operator",
        body=CredentialRotate,
        answers={201: CredentialIssued},
        reach="path",
    )
    def rotate_credential(call: Call) -> CredentialIssued:
        """Issue a new credential and let the others end after overlap_s."""
        issued = registry.rotate_credential(call.path["device_id"], call.body.overlap_s, who(call))
        return CredentialIssued(credential=issued)

    @api.route("DELETE", DEVICE + "/credentials/<credential_id>", "operator", answers={204: None}, reach="path")
    def revoke_credential(call: Call) -> None:
        """Revoke a credential."""
        registry.revoke_credential(call.path["device_id"], call.path["credential_id"], who(call))


def limit_json() -> None:
    """Hold JSON bodies to a size far below that of an import; a Flask before_request function."""
    is_import = request.path == "/v1/devices:import"
    is_internal = request.path.startswith("/internal/")
    if not is_import and not is_internal and (request.content_length or 0) > _JSON_BYTES:
        raise TooLarge(f"body of {request.content_length} bytes, limit {_JSON_BYTES}")


def _to_filter(query: DeviceQuery) -> DeviceFilter:
    return DeviceFilter(
        tree=parse(query.q, clock.now_ns()),
        tags=tuple(_to_pair(text) for text in query.tag),
        type=query.type,
        state=query.state,
        is_online=query.online,
        after=query.cursor,
        limit=query.limit,
    )


def _to_pair(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        raise BadRequest(f"tag must be key:value, not {text[:80]!r}", fields=["tag"])
    return key, value
