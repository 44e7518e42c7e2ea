"""Routes of gateways and their children: HTTP in and out, no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import Field

from chassis.web import Api, Call
from devices.api import DEVICE, MAX_LIST, who
from devices.rows import Who
from wire.devices import Model, Text
from wire.errors import NotFound
from wire.gateways import (
    ChildAdmission,
    ChildPage,
    ChildrenAdmitted,
    ChildView,
    GatewayRules,
    NameGiven,
    NameList,
    NamesTold,
    NamesWanted,
    Parent,
    ParentView,
    RulesChanged,
)
from wire.topics import is_device_id


class Gateways(Protocol):
    """Gateways and children; see `devices.gateways.store.GatewayStore`."""

    def rules(self, tenant: str, gateway: str) -> GatewayRules: ...
    def put_rules(self, tenant: str, gateway: str, rules: GatewayRules, who: Who) -> list[str]: ...
    def children(self, tenant: str, gateway: str, after: str, limit: int) -> list[ChildView]: ...
    def parent(self, tenant: str, device: str) -> str | None: ...
    def set_parent(self, tenant: str, device: str, gateway: str | None, who: Who) -> None: ...
    def admit(self, gateway: str, ids: Sequence[str], names: Sequence[str] = ()) -> ChildrenAdmitted: ...


class Names(Protocol):
    """External names; see `devices.gateways.names.NameStore`."""

    def add(self, tenant: str, device: str, name: str, who: Who) -> list[str]: ...
    def remove(self, tenant: str, device: str, name: str, who: Who) -> None: ...
    def tell(self, device: str, after: str) -> NamesTold: ...


NAMED = 100  # of the children that new rules leave out


class ChildQuery(Model):
    """Which part of the children."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Text = ""


class NameQuery(Model):
    """Which name."""

    name: str = ""


def add_routes(api: Api, gateways: Gateways, names: Names) -> None:
    """Declare the routes."""
    _add_rules(api, gateways)
    _add_parents(api, gateways)
    _add_names(api, names)

    @api.route("POST", "/internal/children:admit", "service", callers=("ingest",), body=ChildAdmission)
    def admit(call: Call) -> ChildrenAdmitted:
        """Register children that a gateway named and nobody knows, as its rules say."""
        return gateways.admit(call.body.gateway, call.body.children, call.body.names)

    @api.route("POST", "/internal/names:list", "service", callers=("ingest",), body=NamesWanted)
    def tell(call: Call) -> NamesTold:
        """Tell what a sender may call devices."""
        return names.tell(call.body.device, call.body.after)


def _add_rules(api: Api, gateways: Gateways) -> None:
    @api.route("GET", DEVICE + "/gateway", "viewer", answers={200: GatewayRules})
    def get_rules(call: Call) -> GatewayRules:
        """Show a gateway's rules for the devices that are seen through it."""
        return gateways.rules(call.actor.tenant, _id(call))

    @api.route("PUT", DEVICE + "/gateway", "operator", body=GatewayRules, answers={200: RulesChanged})
    def put_rules(call: Call) -> RulesChanged:
        """Replace a gateway's rules; the children it has stay, and those outside its prefixes are named."""
        outside = gateways.put_rules(call.actor.tenant, _id(call), call.body, who(call))
        return RulesChanged(**dict(call.body), left_out=len(outside), left_out_children=outside[:NAMED])

    @api.route("GET", DEVICE + "/children", "viewer", query=ChildQuery, answers={200: ChildPage}, reach="refused")
    def list_children(call: Call) -> ChildPage:
        """List the devices that are seen through a gateway, in order of their ids."""
        items = gateways.children(call.actor.tenant, _id(call), call.query.cursor, call.query.limit)
        return ChildPage(items=items, next=items[-1].id if len(items) == call.query.limit else None)


def _add_parents(api: Api, gateways: Gateways) -> None:
    @api.route("GET", DEVICE + "/parent", "viewer", answers={200: ParentView})
    def get_parent(call: Call) -> ParentView:
        """Tell the gateway that a device is seen through."""
        return ParentView(gateway=gateways.parent(call.actor.tenant, _id(call)))

    @api.route("PUT", DEVICE + "/parent", "operator", body=Parent, answers={200: ParentView})
    def put_parent(call: Call) -> ParentView:
        """Move a device to a gateway: from now on it is seen through this one only."""
        gateways.set_parent(call.actor.tenant, _id(call), call.body.gateway, who(call))
        return ParentView(gateway=call.body.gateway)

    @api.route("DELETE", DEVICE + "/parent", "operator", answers={204: None})
    def delete_parent(call: Call) -> None:
        """Take a device away from its gateway; it stays registered."""
        gateways.set_parent(call.actor.tenant, _id(call), None, who(call))


def _add_names(api: Api, names: Names) -> None:
    @api.route("POST", DEVICE + "/names", "operator", body=NameGiven, answers={200: NameList})
    def add_name(call: Call) -> NameList:
        """Let a device be known by an external name, too."""
        return NameList(names=names.add(call.actor.tenant, _id(call), call.body.name, who(call)))

    @api.route("DELETE", DEVICE + "/names", "operator", query=NameQuery, answers={204: None})
    def remove_name(call: Call) -> None:
        """Take an external name away from a device."""
        names.remove(call.actor.tenant, _id(call), call.query.name, who(call))


def _id(call: Call) -> str:
    device_id = call.path["device_id"]
    if not is_device_id(device_id):
        raise NotFound(f"no device {device_id[:80]!r}", code="device_not_found")
    return device_id
