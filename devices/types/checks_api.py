"""Public routes of checks and proposals: HTTP in and out, no rules."""

from __future__ import annotations

from flask import Response

from chassis.web import Api, Call, answer
from devices.api import who
from devices.types.api import TYPE
from devices.types.checks import Checks
from devices.types.dry_run import DryRuns, Queue
from wire.dry_runs import DryRunRequest
from wire.jobs import JobView
from wire.schemas import CheckReport, CheckRequest, Learned, LearnRequest


def add_routes(api: Api, checks: Checks, dry_runs: DryRuns, queue: Queue) -> None:
    """Declare the routes."""

    @api.route("POST", TYPE + ":check", "viewer", body=CheckRequest, answers={200: CheckReport})
    def check_type(call: Call) -> CheckReport:
        """Tell what a new version would refuse: compared with the one in force, and tried on real data."""
        return checks.check(call.actor.tenant, call.path["name"], call.body)

    @api.route("POST", TYPE + ":learn", "operator", body=LearnRequest, answers={201: Learned})
    def learn_type(call: Call) -> Learned:
        """Propose a version from what devices sent, as a draft."""
        return checks.learn(call.actor.tenant, call.path["name"], call.body, who(call))

    @api.route("POST", TYPE + ":dry-run", "operator", body=DryRunRequest, answers={202: JobView})
    def try_type(call: Call) -> Response:
        """Try a version on all readings of the last hours, as a job; it changes nothing."""
        by = call.actor.tenant, who(call)
        return answer(dry_runs.start(queue, call.path["name"], call.body, by), 202)
