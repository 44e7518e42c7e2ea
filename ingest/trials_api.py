"""Routes by which the registry has versions of device types tried (service token; the gateway does not route them)."""

from __future__ import annotations

from chassis.web import Api, Call
from ingest.trials_process import TrialsProcess
from wire.dry_runs import Counted, Place, Slice, SliceRequest, WaitingRequest, WaitingSlice
from wire.schemas import DryRun, Observation, ObserveRequest, TryRequest


def add_routes(api: Api, process: TrialsProcess) -> None:
    """Declare the routes."""

    @api.route("POST", "/internal/types:try", "service", callers=("devices",), body=TryRequest)
    def try_type(call: Call) -> DryRun:
        """Tell what a spec would have done to the data of some devices."""
        return process.ask("try", call.body, DryRun)

    @api.route("POST", "/internal/types:observe", "service", callers=("devices",), body=ObserveRequest)
    def observe(call: Call) -> Observation:
        """Tell what some devices sent."""
        return process.ask("observe", call.body, Observation)

    @api.route("POST", "/internal/types:count", "service", callers=("devices",), body=Place)
    def count(call: Call) -> Counted:
        """Count what some devices sent."""
        return process.ask("count", call.body, Counted)

    @api.route("POST", "/internal/types:judge", "service", callers=("devices",), body=SliceRequest)
    def judge(call: Call) -> Slice:
        """Judge what some devices sent, for a moment."""
        return process.ask("judge", call.body, Slice)

    @api.route("POST", "/internal/types:judge-waiting", "service", callers=("devices",), body=WaitingRequest)
    def judge_waiting(call: Call) -> WaitingSlice:
        """Judge what waits, for a moment."""
        return process.ask("judge-waiting", call.body, WaitingSlice)
