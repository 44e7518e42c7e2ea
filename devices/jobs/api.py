"""Public routes of jobs: HTTP in and out, no rules."""

from __future__ import annotations

from typing import Annotated

from flask import Response
from pydantic import Field

from chassis.web import Api, Call
from devices.api import MAX_LIST, who
from devices.jobs.kinds import JobFilter
from devices.jobs.service import Jobs
from wire.devices import Model, Text
from wire.errors import NotFound
from wire.jobs import JobPage, JobState, JobView

JOB = "/v1/jobs/<job_id>"


class JobQuery(Model):
    """Which jobs to list."""

    kind: Text | None = None
    state: JobState | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Text = ""


def add_routes(api: Api, jobs: Jobs) -> None:
    """Declare the routes."""
    _add_reading(api, jobs)
    _add_results(api, jobs)


def _add_reading(api: Api, jobs: Jobs) -> None:
    @api.route("GET", "/v1/jobs", "viewer", query=JobQuery, answers={200: JobPage}, reach="narrowed")
    def list_jobs(call: Call) -> JobPage:
        """List jobs, newest first."""
        query = call.query
        by = call.actor.signature if call.actor.devices else None
        items = jobs.list(JobFilter(call.actor.tenant, query.kind, query.state, query.cursor, query.limit, by))
        return JobPage(items=items, next=items[-1].id if len(items) == query.limit else None)

    @api.route("GET", JOB, "viewer", answers={200: JobView}, reach="narrowed")
    def get_job(call: Call) -> JobView:
        """Show a job and how far it is."""
        return find_own(jobs, call)

    @api.route("POST", JOB + ":cancel", "operator", answers={200: JobView}, reach="narrowed")
    def cancel_job(call: Call) -> JobView:
        """Ask a job to end; what it did stays, unless its kind undoes it."""
        return jobs.cancel(call.actor.tenant, find_own(jobs, call).id, who(call))


def _add_results(api: Api, jobs: Jobs) -> None:
    @api.route("GET", JOB + "/result", "operator", reach="narrowed")
    def get_result(call: Call) -> Response:
        """Download what a job wrote, as far as it is."""
        media_type, parts = jobs.open_output(call.actor.tenant, find_own(jobs, call).id, who(call))
        return Response((part.encode() for part in parts), content_type=f"{media_type}; charset=utf-8")

    @api.route("DELETE", JOB + "/result", "operator", answers={204: None}, reach="narrowed")
    def delete_result(call: Call) -> None:
        """Delete what a job wrote: secrets that were read are nowhere any more."""
        jobs.drop_output(call.actor.tenant, find_own(jobs, call).id, who(call))


def find_own(jobs: Jobs, call: Call) -> JobView:
    """Give the job of a path. A token for some devices only knows those that it started itself.

    Raises:
        NotFound: the tenant has no such job, or the token none.
    """
    job = jobs.find(call.actor.tenant, call.path["job_id"])
    if call.actor.devices and job.by != call.actor.signature:
        raise NotFound(f"no job {job.id!r}", code="job_not_found")
    return job
