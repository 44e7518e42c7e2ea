"""Routes of bulk actions and counts: HTTP in and out, no rules."""

from __future__ import annotations

from typing import Any

from flask import Response

from chassis.web import Api, Call, answer
from devices.api import demand_all, who
from devices.bulk.service import Bulk, Finder, Queue
from devices.internal.api import ASKERS
from devices.query.parser import parse
from devices.query.reach import narrowed, one, within
from devices.query.tree import Every
from wire import clock
from wire.devices import Model
from wire.finding import BulkPreview, BulkRequest, Count, Membership, Select, Selected, Update
from wire.jobs import JobView
from wire.registry import QueryText

COUNTED = 10_000


class CountQuery(Model):
    """What to count; `exact` counts to the end."""

    q: QueryText = ""
    exact: bool = False


def add_routes(api: Api, bulk: Bulk, finder: Finder, jobs: Queue) -> None:
    """Declare the routes."""
    answers: dict[int, Any] = {200: BulkPreview, 202: JobView}

    @api.route("POST", "/v1/devices:bulk", "operator", reach="narrowed", body=BulkRequest, answers=answers)
    def act(call: Call) -> Response:
        """Do the same to all devices that a query finds, as a job; with `preview`, only tell which."""
        demand_all(call, is_needed=_is_of_others(call.body.action))
        tree = narrowed(call.actor, parse(call.body.query, clock.now_ns()))
        if call.body.preview:
            return answer(bulk.preview(call.actor.tenant, tree))
        return answer(bulk.start(jobs, call.body, tree, (call.actor.tenant, who(call))), 202)

    @api.route("GET", "/v1/devices:count", "viewer", query=CountQuery, answers={200: Count}, reach="narrowed")
    def count(call: Call) -> Count:
        """Count the devices that a query finds; up to 10,000 unless `exact`."""
        tree = narrowed(call.actor, parse(call.query.q, clock.now_ns()))
        found = finder.count(call.actor.tenant, tree, None if call.query.exact else COUNTED + 1)
        is_exact = call.query.exact or found <= COUNTED
        return Count(count=found if is_exact else COUNTED, is_exact=is_exact)

    @api.route("POST", "/internal/devices:select", "service", callers=ASKERS, body=Select)
    def select(call: Call) -> Selected:
        """Give the ids that a query finds, page by page."""
        asked: Select = call.body
        tree = within(asked.scope, parse(asked.query, clock.now_ns()))
        if asked.id is not None:
            tree = Every((tree, one(asked.id)))
        ids = finder.ids(asked.tenant, tree, after=asked.after, limit=asked.limit)
        return Selected(ids=ids, next=ids[-1] if len(ids) == asked.limit else None)


def _is_of_others(action: Any) -> bool:
    """Tell whether an action gives rights over other devices than it is done to."""
    is_gateway = isinstance(action, Update) and "gateway" in action.patch.model_fields_set
    return is_gateway or isinstance(action, Membership)
