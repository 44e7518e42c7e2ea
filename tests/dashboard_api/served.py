"""The dashboard as gunicorn serves it in the tests: real feed source, real store, neighbours by URL."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask

import series
from chassis.peers import HttpPeer
from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from dashboard_api.source import FeedSource
from tests.dashboard_api.fakes import SERVICE_TOKEN


def create_app() -> Flask:
    url, broker = os.environ["TEST_PLATFORM_URL"], os.environ["TEST_BROKER"]
    peer = HttpPeer(url, SERVICE_TOKEN)
    ports = Ports(reader=series.open_reader("embedded:", Path(os.environ["TEST_DATA"])), devices=peer, ingest=peer)
    FeedSource(broker, "_dashboard", "", ports.hub.publish).start(ports.workers)
    return assemble(DashboardConfig(service_token=SERVICE_TOKEN, broker=broker), ports)
