"""Wiring of device types: their rows, verbs and routes."""

from __future__ import annotations

from chassis.peers import Peer
from chassis.web import Api
from devices.database.engine import Database
from devices.types import api, checks_api, exchange_api
from devices.types.checks import Checks
from devices.types.exchange import Exchange
from devices.types.service import DeviceTypes
from devices.types.store import TypeStore

TRIAL_S = 20.0  # for an answer of ingestion that reads through hours of data


def add_routes(routes: Api, database: Database, ingest: Peer) -> None:
    """Declare all routes of device types; `ingest` tries new versions on real data."""
    rows = TypeStore(database)
    types = DeviceTypes(rows)
    api.add_routes(routes, types, rows)
    checks_api.add_routes(routes, Checks(types, rows, ingest))
    exchange_api.add_routes(routes, Exchange(types))
