"""Public routes of device types and their versions: HTTP in and out, no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from flask import Response
from pydantic import Field

from chassis.web import Api, Call, answer
from devices.api import who
from devices.types.service import DeviceTypes
from wire.devices import DeviceType, DeviceTypeSpec, Model, Text
from wire.errors import NotFound
from wire.registry import DeviceTypeCreate, DeviceTypeList
from wire.retention import TermPage
from wire.schemas import (
    TypeActivate,
    TypeDiff,
    TypeDraft,
    TypeRollback,
    TypeSummaryList,
    TypeUnschedule,
    TypeVersionDetail,
    TypeVersionList,
)

TYPES = "/v1/device-types"
TYPE = TYPES + "/<name>"
VERSION = TYPE + "/versions/<number>"
_DIGITS = 9
MAX_TERMS = 5_000  # devices a page looks at


class DiffQuery(Model):
    """With which version to compare; absent: the one in force."""

    against: Annotated[int, Field(ge=1, le=2**53)] | None = None


class NamesQuery(Model):
    """Which versions to name."""

    id: Annotated[list[Annotated[int, Field(ge=1, le=2**62)]], Field(max_length=1_000)] = []


class TermsQuery(Model):
    """Which part of the devices."""

    cursor: Text = ""
    limit: Annotated[int, Field(ge=1, le=MAX_TERMS)] = MAX_TERMS


class Lookups(Protocol):
    """Answers other services; see `devices.types.store.TypeStore`."""

    def name_versions(self, ids: Sequence[int]) -> dict[int, tuple[str, int]]: ...
    def terms(self, after: str, limit: int) -> TermPage: ...


def add_routes(api: Api, types: DeviceTypes, lookups: Lookups) -> None:
    """Declare the routes."""
    _add_types(api, types)
    _add_versions(api, types)
    _add_deeds(api, types)
    _add_lookups(api, lookups)


def _add_types(api: Api, types: DeviceTypes) -> None:
    @api.route("GET", TYPES, "viewer", reach="any", answers={200: DeviceTypeList})
    def list_types(call: Call) -> DeviceTypeList:
        """List device types in force."""
        return DeviceTypeList(items=types.list(call.actor.tenant))

    @api.route("GET", TYPES + ":summary", "viewer", answers={200: TypeSummaryList})
    def list_summaries(call: Call) -> TypeSummaryList:
        """List device types briefly, with their drafts and how many devices have each."""
        return TypeSummaryList(items=list(types.summaries(call.actor.tenant)))

    @api.route("POST", TYPES, "operator", body=DeviceTypeCreate, answers={201: DeviceType})
    def create_type(call: Call) -> DeviceType:
        """Create a device type."""
        spec = DeviceTypeSpec(**call.body.model_dump(exclude={"name"}))
        return types.create(call.actor.tenant, call.body.name, spec, who(call))

    @api.route("GET", TYPE, "viewer", reach="any", answers={200: DeviceType})
    def get_type(call: Call) -> DeviceType:
        """Show a device type: the version in force."""
        return types.find(call.actor.tenant, call.path["name"])

    @api.route("PUT", TYPE, "operator", body=DeviceTypeSpec, answers={200: DeviceType, 201: DeviceType})
    def put_type(call: Call) -> Response:
        """Create a device type, or put a new version of it in force."""
        kind, is_new = types.put(call.actor.tenant, call.path["name"], call.body, who(call))
        return answer(kind, 201 if is_new else 200)

    @api.route("DELETE", TYPE, "admin", answers={204: None})
    def delete_type(call: Call) -> None:
        """Delete a device type that no device has; its versions can still be looked up."""
        types.remove(call.actor.tenant, call.path["name"], who(call))


def _add_versions(api: Api, types: DeviceTypes) -> None:
    @api.route("GET", TYPE + "/versions", "viewer", reach="any", answers={200: TypeVersionList})
    def list_versions(call: Call) -> TypeVersionList:
        """List all versions of a device type, newest first."""
        return TypeVersionList(items=list(types.versions(call.actor.tenant, call.path["name"])))

    @api.route("POST", TYPE + "/versions", "operator", body=TypeDraft, answers={201: TypeVersionDetail})
    def draft_version(call: Call) -> TypeVersionDetail:
        """Write a version down as a draft; the type need not exist."""
        return types.draft(call.actor.tenant, call.path["name"], call.body, who(call))

    @api.route("GET", VERSION, "viewer", reach="any", answers={200: TypeVersionDetail})
    def get_version(call: Call) -> TypeVersionDetail:
        """Show one version of a device type."""
        return types.version(call.actor.tenant, call.path["name"], _number(call))

    @api.route("GET", VERSION + "/diff", "viewer", reach="any", query=DiffQuery, answers={200: TypeDiff})
    def diff_versions(call: Call) -> TypeDiff:
        """Compare a version with another, and say what each change means for data."""
        return types.diff(call.actor.tenant, call.path["name"], call.query.against, _number(call))


def _add_deeds(api: Api, types: DeviceTypes) -> None:
    @api.route("POST", TYPE + ":activate", "operator", body=TypeActivate, answers={200: TypeVersionDetail})
    def activate_version(call: Call) -> TypeVersionDetail:
        """Put a draft in force at once, or at a time."""
        tenant, name, wanted = call.actor.tenant, call.path["name"], call.body
        if wanted.at is not None:
            return types.schedule(tenant, name, wanted.version, wanted.at, who(call))
        types.activate(tenant, name, wanted.version, who(call))
        return types.version(tenant, name, wanted.version)

    @api.route("POST", TYPE + ":unschedule", "operator", body=TypeUnschedule, answers={200: TypeVersionDetail})
    def unschedule_version(call: Call) -> TypeVersionDetail:
        """Let a scheduled version stay a draft."""
        return types.schedule(call.actor.tenant, call.path["name"], call.body.version, None, who(call))

    @api.route("POST", TYPE + ":rollback", "operator", body=TypeRollback, answers={200: DeviceType})
    def roll_back(call: Call) -> DeviceType:
        """Put the content of an earlier version in force again, as a new version."""
        return types.roll_back(call.actor.tenant, call.path["name"], call.body.version, who(call))


def _add_lookups(api: Api, lookups: Lookups) -> None:
    @api.route("GET", "/internal/type-versions", "service", callers=("dashboard",), query=NamesQuery)
    def name_versions(call: Call) -> dict[str, Any]:
        """Give type and version of the numbers that points carry."""
        found = lookups.name_versions(call.query.id)
        return {"items": [{"id": id_, "type": name, "version": version} for id_, (name, version) in found.items()]}

    @api.route("GET", "/internal/retention", "service", callers=("writer",), query=TermsQuery)
    def tell_terms(call: Call) -> TermPage:
        """Tell the writer which devices are kept how long, page by page."""
        return lookups.terms(call.query.cursor, call.query.limit)


def _number(call: Call) -> int:
    text = call.path["number"]
    if not (text.isascii() and text.isdecimal() and 0 < len(text) <= _DIGITS):
        raise NotFound(f"no version {text[:32]!r}", code="version_not_found")
    return int(text)
