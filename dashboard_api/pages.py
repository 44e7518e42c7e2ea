"""The operator's web pages: server-rendered from the other services with the operator's own token.

Scripts only keep a page alive; without them every page can be read and every form sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from flask import Response, redirect, render_template, request

from chassis import web
from chassis.web import Api, Call
from dashboard_api import look
from dashboard_api.fleet import Fleet
from dashboard_api.views import DevicePage, Views
from wire import clock

PAGE = 50
REPLAY_MAX = 1_000
FILTERS = ("device", "code", "protocol")  # of the quarantine
# name -> (length, bucket of its charts): about 300 to 450 buckets each
WINDOWS = {"15m": (900, 2), "1h": (3_600, 10), "6h": (21_600, 60), "24h": (86_400, 300), "7d": (604_800, 1_800)}
DEFAULT_WINDOW = "1h"


def add_routes(api: Api, views: Views, fleet: Fleet) -> None:
    """Add the pages and what their scripts ask for to the API."""
    _add_fleet(api, views, fleet)
    _add_devices(api, views)
    _add_quarantine(api, views)
    _add_protocols(api, views)


def _add_fleet(api: Api, views: Views, fleet: Fleet) -> None:
    @api.route("GET", "/", "viewer")
    def overview(call: Call) -> Response:
        """The fleet at a glance."""
        mine = token()
        return show_page("overview.html", call, figures=fleet.figures(mine, call.actor.tenant),
                     readings=views.readings(mine, call.actor.tenant))  # fmt: skip

    @api.route("GET", "/v1/overview", "viewer", answers={200: None})
    def figures(call: Call) -> dict[str, Any]:
        """Figures of the fleet: devices, rate, lag, ledger; null where a service does not answer."""
        return fleet.figures(token(), call.actor.tenant).to_json()


def _add_devices(api: Api, views: Views) -> None:
    @api.route("GET", "/devices/<device_id>", "viewer")
    def device(call: Call) -> Response:
        """One device: latest values, charts, presence, tags, quarantined messages."""
        shown: DevicePage = views.device(token(), call.path["device_id"], call.actor.tenant)
        window = request.args.get("window", "")
        window = window if window in WINDOWS else _usual_window(shown)
        length_s, every_s = WINDOWS[window]
        return show_page("device.html", call, shown=shown, window=window, windows=list(WINDOWS), length_s=length_s,
                     every_s=every_s)  # fmt: skip


def _add_quarantine(api: Api, views: Views) -> None:
    @api.route("GET", "/quarantine", "viewer")
    def quarantine(call: Call) -> Response:
        """Refused messages with their reasons."""
        filters = {name: request.args.get(name, "").strip() for name in FILTERS}
        listing = views.quarantine(token(), look.given(filters) | paging())
        more = following("/quarantine", filters, listing)
        return show_page("quarantine.html", call, listing=listing, filters=filters, following=more,
                     outcome=_outcome(), is_first="cursor" not in request.args)  # fmt: skip

    @api.route("POST", "/quarantine/replay", "operator")
    def replay(_call: Call) -> Response:
        """Replay quarantined messages, then show what became of it."""
        ids = request.form.getlist("id")[:REPLAY_MAX]
        back = look.given({name: request.form.get(name, "") for name in FILTERS})
        body: dict[str, Any] = {"ids": ids} if ids else {"filter": back}
        outcome = views.replay(token(), body)
        failed: Sequence[Any] = outcome.get("failed") or []
        more = int(bool(outcome.get("more")))
        found = back | {"replayed": outcome.get("replayed", 0), "failed": len(failed), "more": more}
        response = redirect(f"/quarantine?{urlencode(found)}", 303, Response)
        assert isinstance(response, Response)
        return response


def _add_protocols(api: Api, views: Views) -> None:
    @api.route("GET", "/protocols", "viewer")
    def protocols(call: Call) -> Response:
        """What the devices speak: state of its service, rate, errors by reason, the last bad message."""
        listing = views.protocols(token())
        spoken = [each for each in listing["items"] if each["last_heard"] or each["last_bad"]]
        silent = [each for each in listing["items"] if each not in spoken]
        return show_page("protocols.html", call, spoken=spoken, silent=silent, refused=listing["refused"])


def _usual_window(shown: DevicePage) -> str:
    """Choose the span of the charts: a device that is new would be a dot at the end of an hour."""
    registered_ns = look.to_ns(shown.details.get("created"))
    is_new = registered_ns is not None and clock.now_ns() - registered_ns < WINDOWS["15m"][0] * clock.NS_PER_S
    return "15m" if is_new else DEFAULT_WINDOW


def show_page(template: str, call: Call, **shown: Any) -> Response:
    """Render a page for who asks."""
    first = request.path.split("/")[1]
    here = {"": "overview", "groups": "devices", "protocols": "quarantine"}.get(first, first)
    return Response(render_template(template, operator=call.actor, here=here, **shown))


def following(path: str, filters: Mapping[str, str], listing: Mapping[str, Any]) -> str:
    """Give the address of the next page; empty when this is the last."""
    if not listing.get("next"):
        return ""
    return f"{path}?{urlencode(look.given(filters) | {'cursor': listing['next']})}"


def token() -> str:
    """Give the operator's token of this request."""
    return web.presented_token()[0]


def paging() -> dict[str, str]:
    """Give what a listing is asked for its page."""
    cursor = request.args.get("cursor", "")
    return {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})


def _outcome() -> dict[str, int] | None:
    replayed, failed = request.args.get("replayed", ""), request.args.get("failed", "")
    if not (replayed.isdecimal() and failed.isdecimal() and len(replayed + failed) < 20):  # noqa: PLR2004
        return None
    return {"replayed": int(replayed), "failed": int(failed), "more": int(request.args.get("more") == "1")}
