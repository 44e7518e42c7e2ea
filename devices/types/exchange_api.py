"""Public routes of import, export and shipped types: HTTP in and out, no rules."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Response
from pydantic import Field

from chassis.web import Api, Call, dump_json
from devices.api import who
from devices.types.api import TYPE, TYPES
from devices.types.exchange import Exchange, Schema
from wire.devices import Model
from wire.schemas import Imported, Install, Installed, ReadyTypeList

SCHEMA_JSON = "application/schema+json"


class ExportQuery(Model):
    """Which version; absent: the one in force."""

    version: Annotated[int, Field(ge=1, le=2**53)] | None = None


class ImportQuery(Model):
    """Whether the version is in force at once; whether values that can be no field are left out."""

    activate: bool = False
    partial: bool = False


def add_routes(api: Api, exchange: Exchange) -> None:
    """Declare the routes."""

    @api.route("GET", TYPE + ":export", "viewer", reach="any", query=ExportQuery)
    def export_type(call: Call) -> Response:
        """Give a device type as JSON Schema (draft 2020-12)."""
        schema = exchange.export(call.actor.tenant, call.path["name"], call.query.version)
        return Response(dump_json(schema), content_type=SCHEMA_JSON)

    @api.route("POST", TYPE + ":import", "operator", body=dict[str, Any], query=ImportQuery, answers={201: Imported})
    def import_type(call: Call) -> Imported:
        """Make a version of a JSON Schema, and list what of it is not understood."""
        tenant, name = call.actor.tenant, call.path["name"]
        schema = Schema(call.body, call.query.partial)
        return exchange.take(tenant, name, schema, who(call), activate=call.query.activate)

    @api.route("GET", TYPES + ":ready", "viewer", reach="any", answers={200: ReadyTypeList})
    def list_ready(call: Call) -> ReadyTypeList:
        """List the device types that come with the platform."""
        return ReadyTypeList(items=exchange.list_ready(call.actor.tenant))

    @api.route("POST", TYPES + ":install", "operator", body=Install, answers={200: Installed})
    def install_types(call: Call) -> Installed:
        """Put device types that come with the platform in force."""
        return exchange.install(call.actor.tenant, call.body.names, who(call))
