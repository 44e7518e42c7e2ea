"""Wiring of device types: their rows, verbs and routes."""

from __future__ import annotations

from chassis.peers import HttpPeer
from chassis.web import Api
from devices.config import DevicesConfig
from devices.database.engine import Database
from devices.descriptions.store import DescriptionStore
from devices.jobs.store import JobStore
from devices.types import api, checks_api, codecs_api, exchange_api
from devices.types.checks import Checks
from devices.types.dry_run import DryRuns, Queue
from devices.types.exchange import Exchange
from devices.types.service import DeviceTypes
from devices.types.store import TypeStore

TRIAL_S = 20.0  # for an answer of ingestion that reads through hours of data
SLICE_S = 8.0  # for one that looks at a moment's worth of it: other jobs wait meanwhile


class Types:
    """Device types of a registry; ingestion tries new versions on real data."""

    def __init__(self, config: DevicesConfig, database: Database) -> None:
        ingest = HttpPeer(config.ingest_url, config.service_token, timeout_s=TRIAL_S)
        self._rows = TypeStore(database)
        self._types = DeviceTypes(self._rows)
        self._checks = Checks(self._types, self._rows, ingest, DescriptionStore(database))
        self.dry_runs = DryRuns(self._types, self._rows, JobStore(database), ingest.with_timeout(SLICE_S))

    def add_routes(self, routes: Api, queue: Queue) -> None:
        """Declare all routes of device types; long dry runs are queued."""
        api.add_routes(routes, self._types, self._rows)
        checks_api.add_routes(routes, self._checks, self.dry_runs, queue)
        codecs_api.add_routes(routes, self._types)
        exchange_api.add_routes(routes, Exchange(self._types))
