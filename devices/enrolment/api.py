"""Routes of enrolment: operators open ways in, devices come through them. HTTP in and out, no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field, TypeAdapter

from chassis.bodies import read_model
from chassis.web import Api, Call, presented_token
from devices.api import MAX_LIST, who
from devices.enrolment.service import Door, Enrolments
from devices.rows import Who
from wire.devices import Model, Text
from wire.enrolment import (
    Admission,
    Admitted,
    EnrolAnswer,
    EnrolmentCreate,
    EnrolmentCreated,
    EnrolmentList,
    EnrolRequest,
    HoldChoice,
    HoldPage,
    HoldsDecided,
    HoldView,
)

REQUEST = TypeAdapter(EnrolRequest)


class HoldStore(Protocol):
    """Held devices; see `devices.enrolment.holds.HoldStore`."""

    def page(self, tenant: str, after: str, limit: int) -> list[HoldView]: ...
    def decide(self, tenant: str, ids: Sequence[str], state: Literal["active", "disabled"], who: Who) -> list[str]: ...


class HoldQuery(Model):
    """Which held devices to list."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Text = ""


def add_routes(api: Api, enrolments: Enrolments, door: Door, holds: HoldStore) -> None:
    """Declare the routes."""
    _add_enrolments(api, enrolments)
    _add_holds(api, holds)
    _add_door(api, door)


def _add_enrolments(api: Api, enrolments: Enrolments) -> None:
    @api.route("POST", "/v1/enrolments", "operator", body=EnrolmentCreate, answers={201: EnrolmentCreated})
    def create_enrolment(call: Call) -> EnrolmentCreated:
        """Open a way in for new devices; the answer is the only place where its secret is shown."""
        return enrolments.create(call.actor.tenant, call.body, who(call))

    @api.route("GET", "/v1/enrolments", "viewer", answers={200: EnrolmentList})
    def list_enrolments(call: Call) -> EnrolmentList:
        """List the ways in without their secrets."""
        return EnrolmentList(items=enrolments.list(call.actor.tenant))

    @api.route("DELETE", "/v1/enrolments/<enrolment>", "operator", answers={204: None})
    def revoke_enrolment(call: Call) -> None:
        """Close a way in, by id or name; the devices that came by it stay."""
        enrolments.revoke(call.actor.tenant, call.path["enrolment"], who(call))


def _add_holds(api: Api, holds: HoldStore) -> None:
    @api.route("GET", "/v1/holds", "viewer", query=HoldQuery, answers={200: HoldPage})
    def list_holds(call: Call) -> HoldPage:
        """List the devices that wait to be accepted, in order of their ids."""
        items = holds.page(call.actor.tenant, call.query.cursor, call.query.limit)
        return HoldPage(items=items, next=items[-1].id if len(items) == call.query.limit else None)

    @api.route("POST", "/v1/holds:accept", "operator", body=HoldChoice, answers={200: HoldsDecided})
    def accept_holds(call: Call) -> HoldsDecided:
        """Accept held devices; their data that waits is replayed within seconds."""
        return HoldsDecided(decided=holds.decide(call.actor.tenant, call.body.ids, "active", who(call)))

    @api.route("POST", "/v1/holds:refuse", "operator", body=HoldChoice, answers={200: HoldsDecided})
    def refuse_holds(call: Call) -> HoldsDecided:
        """Disable held devices, so that they cannot come again; their data stays in the quarantine."""
        return HoldsDecided(decided=holds.decide(call.actor.tenant, call.body.ids, "disabled", who(call)))


def _add_door(api: Api, door: Door) -> None:
    @api.route("POST", "/v1/enrol", "own", body=EnrolRequest, answers={201: EnrolAnswer})
    def enrol(call: Call) -> EnrolAnswer:
        """Register this device by an enrolment token, or by its key derived from a group's."""
        return door.enrol(presented_token()[0], read_model(REQUEST), call.remote_ip)

    @api.route("POST", "/internal/devices:admit", "service", callers=("ingest",), body=Admission)
    def admit(call: Call) -> Admitted:
        """Register a device that presents a key derived from a group's."""
        return Admitted(admitted=door.admit(call.body.id, call.body.sha256, call.body.remote_ip))
