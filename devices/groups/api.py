"""Routes of groups: HTTP in and out, no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from chassis.web import Api, Call
from devices.api import who
from devices.query.parser import parse
from devices.rows import Who
from wire import clock
from wire.errors import NotFound
from wire.finding import GroupCreate, GroupList, GroupNames, GroupPatch, GroupView, Members, MembersChanged
from wire.topics import is_device_id

GROUPS, GROUP = "/v1/groups", "/v1/groups/<name>"


class GroupRows(Protocol):
    """Where groups are kept; see `devices.groups.store.GroupStore`."""

    def list(self, tenant: str) -> list[GroupView]: ...
    def find(self, tenant: str, name: str) -> GroupView: ...
    def add(self, tenant: str, wanted: GroupCreate, who: Who) -> None: ...
    def change(self, tenant: str, name: str, given: dict[str, Any], who: Who) -> None: ...
    def remove(self, tenant: str, name: str, who: Who) -> None: ...
    def put_in(self, tenant: str, name: str, devices: Sequence[str], who: Who) -> tuple[int, Sequence[str]]: ...
    def take_out(self, tenant: str, name: str, devices: Sequence[str], who: Who) -> tuple[int, Sequence[str]]: ...
    def of_device(self, tenant: str, device: str) -> Sequence[str]: ...


def add_routes(api: Api, groups: GroupRows) -> None:
    """Declare the routes."""
    _add_groups(api, groups)
    _add_members(api, groups)


def _add_groups(api: Api, groups: GroupRows) -> None:
    @api.route("GET", GROUPS, "viewer", answers={200: GroupList})
    def list_groups(call: Call) -> GroupList:
        """List groups with what they hold now; counts end at 10,000."""
        return GroupList(items=groups.list(call.actor.tenant))

    @api.route("POST", GROUPS, "operator", body=GroupCreate, answers={201: GroupView})
    def create_group(call: Call) -> GroupView:
        """Make a group: of listed devices, or of whatever a query finds."""
        parse(call.body.query or "", clock.now_ns())
        groups.add(call.actor.tenant, call.body, who(call))
        return groups.find(call.actor.tenant, call.body.name)

    @api.route("GET", GROUP, "viewer", answers={200: GroupView})
    def get_group(call: Call) -> GroupView:
        """Show a group with its exact count."""
        return groups.find(call.actor.tenant, _plain(call.path["name"]))

    @api.route("PATCH", GROUP, "operator", body=GroupPatch, answers={200: GroupView})
    def patch_group(call: Call) -> GroupView:
        """Change description or query of a group."""
        given = {name: value for name, value in call.body.model_dump(exclude_unset=True).items() if value is not None}
        parse(given.get("query", ""), clock.now_ns())
        groups.change(call.actor.tenant, _plain(call.path["name"]), given, who(call))
        return groups.find(call.actor.tenant, call.path["name"])

    @api.route("DELETE", GROUP, "operator", answers={204: None})
    def delete_group(call: Call) -> None:
        """Delete a group; its devices stay."""
        groups.remove(call.actor.tenant, _plain(call.path["name"]), who(call))


def _add_members(api: Api, groups: GroupRows) -> None:
    @api.route("POST", GROUP + ":add", "operator", body=Members, answers={200: MembersChanged})
    def add_members(call: Call) -> MembersChanged:
        """Put devices into a group of listed members."""
        name = _plain(call.path["name"])
        changed, unknown = groups.put_in(call.actor.tenant, name, call.body.devices, who(call))
        return MembersChanged(changed=changed, unknown=list(unknown))

    @api.route("POST", GROUP + ":remove", "operator", body=Members, answers={200: MembersChanged})
    def remove_members(call: Call) -> MembersChanged:
        """Take devices out of a group of listed members."""
        name = _plain(call.path["name"])
        changed, unknown = groups.take_out(call.actor.tenant, name, call.body.devices, who(call))
        return MembersChanged(changed=changed, unknown=list(unknown))

    @api.route("GET", "/v1/devices/<device_id>/groups", "viewer", answers={200: GroupNames})
    def groups_of_device(call: Call) -> GroupNames:
        """Name the groups that hold a device, listed or found."""
        device = call.path["device_id"]
        if not is_device_id(device):
            raise NotFound(f"no device {device[:80]!r}", code="device_not_found")
        return GroupNames(items=list(groups.of_device(call.actor.tenant, device)))


def _plain(name: str) -> str:
    return name if name.isascii() and name.isprintable() else ""
