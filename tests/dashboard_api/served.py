"""The dashboard as gunicorn serves it in the tests: real feed source, real store, neighbours by URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask

import series
from chassis.peers import HttpPeer
from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from dashboard_api.source import FeedSource
from tests.dashboard_api.fakes import SERVICE_TOKEN


class GatedReader:
    """The store, whose `range` waits while there is a FIFO `gate`: in the kernel, where gevent cannot come between."""

    def __init__(self, data: Path) -> None:
        self._reader, self._gate = series.open_reader("embedded:", data), data / "gate"

    def range(self, query: Any) -> Any:
        if self._gate.exists():
            self._gate.read_bytes()
        return self._reader.range(query)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def create_app() -> Flask:
    url, broker = os.environ["TEST_PLATFORM_URL"], os.environ["TEST_BROKER"]
    peer = HttpPeer(url, SERVICE_TOKEN)
    ports = Ports(reader=GatedReader(Path(os.environ["TEST_DATA"])), devices=peer, ingest=peer)
    FeedSource(broker, "_dashboard", "", ports.hub.publish).start(ports.workers)
    return assemble(DashboardConfig(service_token=SERVICE_TOKEN, broker=broker), ports)
