"""Routes of rotations: HTTP in and out, no rules. Progress, cancel and secrets are those of their job."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import Field

from chassis.web import Api, Call
from devices.api import MAX_LIST, who
from devices.jobs.api import find_own
from devices.jobs.service import Jobs
from devices.query.parser import parse
from devices.query.reach import narrowed
from devices.query.tree import Node
from devices.rotations.service import JOB_KIND, Rotation
from devices.rows import Who
from wire import clock
from wire.devices import Model, Text
from wire.errors import NotFound
from wire.jobs import JobView
from wire.rotations import RotationCreate, WaitingPage, WaitingView

ROTATION = "/v1/rotations/<job_id>"


class Finder(Protocol):
    """Finds devices; see `devices.query.store.Finder`."""

    def ids(self, tenant: str, tree: Node, *, after: str = "", limit: int | None = None) -> list[str]: ...


class Rotations(Protocol):
    """Tells who has not switched; see `devices.rotations.store.RotationStore`."""

    def waiting(self, tenant: str, job_id: str, after: str, limit: int) -> list[WaitingView]: ...


class Amends(Protocol):
    """Tells a running job something; see `devices.jobs.store.JobStore`."""

    def amend(self, job_id: str, kind: str, news: dict[str, Any], deed: tuple[Who, str] | None = None) -> None: ...


class WaitingQuery(Model):
    """Which part of the devices."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Text = ""


def add_routes(api: Api, rotation: Rotation, jobs: Jobs, stores: tuple[Finder, Rotations, Amends]) -> None:
    """Declare the routes."""
    finder, rotations, amends = stores

    @api.route("POST", "/v1/rotations", "operator", body=RotationCreate, answers={202: JobView}, reach="narrowed")
    def start(call: Call) -> JobView:
        """Issue new secrets to all devices that a query finds, and end the old ones when all have switched."""
        ids = finder.ids(call.actor.tenant, narrowed(call.actor, parse(call.body.query, clock.now_ns())))
        return rotation.start(jobs, ids, call.body.model_dump(), (call.actor.tenant, who(call)))

    @api.route("GET", ROTATION + "/waiting", "viewer", query=WaitingQuery, answers={200: WaitingPage}, reach="narrowed")
    def waiting(call: Call) -> WaitingPage:
        """List the devices that have not used their new secret yet."""
        job = _find(jobs, call)
        items = rotations.waiting(call.actor.tenant, job.id, call.query.cursor, call.query.limit)
        return WaitingPage(items=items, next=items[-1].device if len(items) == call.query.limit else None)

    @api.route("POST", ROTATION + ":finish", "operator", answers={200: JobView}, reach="narrowed")
    def finish(call: Call) -> JobView:
        """End the old secrets now, also of devices that have not switched."""
        job = _find(jobs, call)
        amends.amend(job.id, JOB_KIND, {"finish": True}, (who(call), "rotation.finish"))
        return jobs.find(call.actor.tenant, job.id)


def _find(jobs: Jobs, call: Call) -> JobView:
    job = find_own(jobs, call)
    if job.kind != JOB_KIND:
        raise NotFound(f"job {job.id} is no rotation", code="job_not_found")
    return job
