"""Wiring of twins and commands: their stores, verbs, routes and threads."""

from __future__ import annotations

import threading

from chassis.web import Api
from chassis.workers import Workers
from devices.config import DevicesConfig
from devices.control.door import FLUSH_S, DeviceDoor
from devices.control.link import BrokerLink
from devices.control.news import Bell, NewsStore
from devices.database.engine import Database
from devices.internal.lookups import LookupStore
from devices.twins import api as twins_api
from devices.twins.mqtt import TwinTraffic
from devices.twins.service import TwinVerbs
from devices.twins.store import DesiredStore, TwinStore
from wire import clock
from wire.clock import NS_PER_S

QUICK_PATHS = ("GET /v1/device/",)  # devices that wait: parked on the event loop
SWEEP_S = 600.0  # how often old history is deleted
_DAY_NS = 86_400 * NS_PER_S


class Control:
    """State and control of devices, as one process of the registry has it."""

    def __init__(self, database: Database, config: DevicesConfig, door: DeviceDoor) -> None:
        self._config = config
        self._door = door
        self._bell = Bell(NewsStore(database))
        self._twin_rows = TwinStore(database, config.twin_history)
        self._twins = TwinVerbs(self._twin_rows, self._bell)
        self._desired = DesiredStore(database)
        self._revision = LookupStore(database).revision

    def add_routes(self, api: Api) -> None:
        """Declare the routes."""
        twins_api.add_routes(api, self._twins, self._door)

    def start(self, workers: Workers) -> None:
        """Start the threads of every process; stopping the workers ends them."""
        self._bell.start(workers)
        workers.every("device-visits", FLUSH_S, self._door.flush)

    def host(self, stopping: threading.Event) -> None:
        """Do what only one process does, until stopped: the connection to the broker, and deleting what is old."""
        config = self._config
        if config.broker and config.control_password:
            credential = (config.control_username, config.control_password)
            traffic = (TwinTraffic(self._twins, self._desired, self._revision),)
            link = BrokerLink(config.broker, credential, traffic, self._sweep)
            self._bell.also = link.ring
            link.run(stopping)
            return
        while not stopping.wait(SWEEP_S):
            self._sweep()

    def _sweep(self) -> None:
        self._twin_rows.forget(clock.now_ns() - int(self._config.twin_history_days * _DAY_NS))
