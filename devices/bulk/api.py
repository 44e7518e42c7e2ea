"""Routes of bulk actions and counts: HTTP in and out, no rules."""

from __future__ import annotations

from flask import Response

from chassis.web import Api, Call, answer
from devices.api import who
from devices.bulk.service import Bulk, Finder, Queue
from devices.query.parser import parse
from wire import clock
from wire.devices import Model
from wire.finding import BulkPreview, BulkRequest, Count, Select, Selected
from wire.jobs import JobView
from wire.registry import QueryText

COUNTED = 10_000


class CountQuery(Model):
    """What to count; `exact` counts to the end."""

    q: QueryText = ""
    exact: bool = False


def add_routes(api: Api, bulk: Bulk, finder: Finder, jobs: Queue) -> None:
    """Declare the routes."""

    @api.route("POST", "/v1/devices:bulk", "operator", body=BulkRequest, answers={200: BulkPreview, 202: JobView})
    def act(call: Call) -> Response:
        """Do the same to all devices that a query finds, as a job; with `preview`, only tell which."""
        tree = parse(call.body.query, clock.now_ns())
        if call.body.preview:
            return answer(bulk.preview(call.actor.tenant, tree))
        return answer(bulk.start(jobs, call.body, tree, (call.actor.tenant, who(call))), 202)

    @api.route("GET", "/v1/devices:count", "viewer", query=CountQuery, answers={200: Count})
    def count(call: Call) -> Count:
        """Count the devices that a query finds; up to 10,000 unless `exact`."""
        tree = parse(call.query.q, clock.now_ns())
        found = finder.count(call.actor.tenant, tree, None if call.query.exact else COUNTED + 1)
        is_exact = call.query.exact or found <= COUNTED
        return Count(count=found if is_exact else COUNTED, is_exact=is_exact)

    @api.route("POST", "/internal/devices:select", "service", callers=("dashboard", "firmware"), body=Select)
    def select(call: Call) -> Selected:
        """Give the ids that a query finds, page by page."""
        asked: Select = call.body
        ids = finder.ids(asked.tenant, parse(asked.query, clock.now_ns()), after=asked.after, limit=asked.limit)
        return Selected(ids=ids, next=ids[-1] if len(ids) == asked.limit else None)
