"""Pages that find devices: the device list with its query, and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import Response, redirect, request

from chassis.peers import Peer
from chassis.web import Api, Call
from dashboard_api import columns, look
from dashboard_api.pages import following, paging, show_page, token
from dashboard_api.views import Views
from wire.errors import HeadwaterError

SHOWN = {"online": "online", "offline": "offline", "disabled": "state=disabled"}
_TYPED_WRONG = (400, 404, 409, 422)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a query, and where: the text before, at and after the place."""

    detail: str
    before: str = ""
    marked: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What became of a form that was sent."""

    text: str
    is_bad: bool = False


def add_routes(api: Api, views: Views, devices: Peer) -> None:
    """Add the pages to the API."""
    _add_devices(api, views, devices)
    _add_groups(api, devices)


def _add_devices(api: Api, views: Views, devices: Peer) -> None:
    @api.route("GET", "/devices", "viewer")
    def device_list(call: Call) -> Response:
        """The devices that a query finds, to look at and to act on."""
        query, groups, chosen = _query(), [], columns.read(request.args.getlist("columns"))
        fault = _no_columns(chosen.unknown)
        listing: dict[str, Any] = {"items": [], "next": None}
        try:
            listing = views.devices(token(), look.given({"q": query}) | paging())
            if call.actor.role != "viewer" and listing["items"]:
                groups = [group["name"] for group in _groups(devices) if group["query"] is None]
        except HeadwaterError as error:
            if error.status not in (400, 422):  # what was typed is at fault: say so beside the form
                raise
            fault = _fault(query, error)
        more = following("/devices", {"q": query, "columns": chosen.asked}, listing)
        is_first = "cursor" not in request.args
        total = (
            ""
            if fault and not listing["items"]
            else _total(devices, query, len(listing["items"]), is_whole=is_first and not more)
        )
        return show_page("devices.html", call, listing=listing, query=query, following=more, fault=fault,
                         is_first=is_first, total=total, groups=groups, columns=chosen)  # fmt: skip


def _add_groups(api: Api, devices: Peer) -> None:
    def show(call: Call, said: Said | None = None, given: dict[str, str] | None = None) -> Response:
        return show_page("groups.html", call, groups=_groups(devices), said=said, given=given or {})

    @api.route("GET", "/groups", "viewer")
    def groups(call: Call) -> Response:
        """Groups of devices with what they hold now."""
        return show(call)

    @api.route("POST", "/groups", "operator")
    def make(call: Call) -> Response:
        """Make a group, then show all."""
        given = {name: request.form.get(name, "").strip() for name in ("name", "query", "description")}
        body = {"name": given["name"], "description": given["description"], "query": given["query"] or None}
        return _done(lambda: devices.call("POST", "/v1/groups", body, token=token()), call, given)

    @api.route("POST", "/groups/delete", "operator")
    def delete(call: Call) -> Response:
        """Delete a group, then show all."""
        path = "/v1/groups/" + request.form.get("name", "").replace("/", "")
        return _done(lambda: devices.call("DELETE", path, token=token()), call, {})

    def _done(act: Any, call: Call, given: dict[str, str]) -> Response:
        try:
            act()
        except HeadwaterError as error:
            if error.status not in _TYPED_WRONG:
                raise
            return show(call, Said(error.detail, is_bad=True), given)
        response = redirect("/groups", 303, Response)
        assert isinstance(response, Response)
        return response


def _query() -> str:
    """Give the query of the address; filters of older addresses become a part of it."""
    given = {name: request.args.get(name, "").strip() for name in ("q", "tag", "type", "show")}
    parts = [f"({given['q']})" if given["q"] and len(look.given(given)) > 1 else given["q"]]
    parts += [f"type={look.quoted(given['type'])}"] if given["type"] else []
    key, colon, text = given["tag"].partition(":")
    parts += [f"tag.{key}={look.quoted(text)}" if colon else f"has tag.{key}"] if key else []
    parts += [SHOWN[given["show"]]] if given["show"] in SHOWN else []
    return " and ".join(part for part in parts if part)


def _no_columns(unknown: Sequence[str]) -> Fault | None:
    if not unknown:
        return None
    return Fault(f"no column {unknown[0][:40]!r}; there are {', '.join(columns.NAMES)}, tag.KEY and attr.KEY")


def _fault(query: str, error: HeadwaterError) -> Fault:
    at, length = error.extra.get("position"), error.extra.get("length")
    if not isinstance(at, int) or not isinstance(length, int):
        return Fault(error.detail)
    end = at + max(1, length)
    return Fault(error.detail, query[:at], query[at:end] or " ", query[end:])


def _groups(devices: Peer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = devices.call("GET", "/v1/groups", token=token())["items"]
    return found


def _total(devices: Peer, query: str, shown: int, *, is_whole: bool) -> str:
    """Say how many devices there are; counted by the registry when the page does not show them all."""
    found = {"count": shown, "is_exact": True}
    if not is_whole:
        found = devices.call("GET", f"/v1/devices:count?{urlencode({'q': query})}", token=token())
    return f"{found['count']:,}{'' if found['is_exact'] else '+'}"
