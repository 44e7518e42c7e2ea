"""Routes about what devices told of their fields, for the platform's own services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from chassis.web import Api, Call
from devices import metrics
from wire.descriptions import AllTold, Answered, Asked, Told


class Descriptions(Protocol):
    """Keeps them; see `devices.descriptions.store.DescriptionStore`."""

    def tell(self, told: Sequence[Told]) -> int: ...
    def known(self, tenant: str, devices: Sequence[str]) -> dict[str, list[dict[str, Any]]]: ...


def add_routes(api: Api, descriptions: Descriptions) -> None:
    """Declare the routes."""

    @api.route("POST", "/internal/descriptions", "service", callers=("ingest",), body=AllTold)
    def tell(call: Call) -> None:
        """Note what devices told of their fields."""
        surplus = descriptions.tell(call.body.told)
        metrics.SURPLUS_FIELDS.inc(surplus)

    @api.route("POST", "/internal/descriptions:lookup", "service", callers=("dashboard",), body=Asked)
    def lookup(call: Call) -> Answered:
        """Give what is known of the fields of some devices."""
        return Answered(items=descriptions.known(call.body.tenant, call.body.devices))
