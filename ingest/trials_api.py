"""Routes by which the registry has versions of device types tried (service token; the gateway does not route them)."""

from __future__ import annotations

from chassis.web import Api, Call
from ingest.trials import Trials
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
