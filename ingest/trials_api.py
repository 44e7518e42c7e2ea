"""Routes by which the registry has versions of device types tried (service token; the gateway does not route them)."""

from __future__ import annotations

from chassis.web import Api, Call
from ingest.dry_run import DryRuns
from ingest.trials import Trials
from wire.dry_runs import Counted, Place, Slice, SliceRequest, WaitingRequest, WaitingSlice
from wire.schemas import DryRun, Observation, ObserveRequest, TryRequest


def add_routes(api: Api, trials: Trials) -> None:
    """Declare the routes."""

    @api.route("POST", "/internal/types:try", "service", callers=("devices",), body=TryRequest)
    def try_type(call: Call) -> DryRun:
        """Tell what a spec would have done to the data of some devices."""
        return trials.run(call.body)

    @api.route("POST", "/internal/types:observe", "service", callers=("devices",), body=ObserveRequest)
    def observe(call: Call) -> Observation:
        """Tell what some devices sent."""
        return trials.observe(call.body)


def add_dry_runs(api: Api, runs: DryRuns) -> None:
    """Declare the routes of dry runs that go slice by slice."""

    @api.route("POST", "/internal/types:count", "service", callers=("devices",), body=Place)
    def count(call: Call) -> Counted:
        """Count what some devices sent."""
        return runs.count(call.body)

    @api.route("POST", "/internal/types:judge", "service", callers=("devices",), body=SliceRequest)
    def judge(call: Call) -> Slice:
        """Judge what some devices sent, for a moment."""
        return runs.judge(call.body)

    @api.route("POST", "/internal/types:judge-waiting", "service", callers=("devices",), body=WaitingRequest)
    def judge_waiting(call: Call) -> WaitingSlice:
        """Judge what waits, for a moment."""
        return runs.judge_waiting(call.body)
