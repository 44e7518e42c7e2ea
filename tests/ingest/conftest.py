"""Fixtures of the ingest tests: real brokers, services and processes, ended with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask

from ingest.app import create_app
from ingest.config import IngestConfig
from tests.ingest.bridge.support import BridgeProcess, Broker, Ingest, Publisher
from tests.ingest.intake_support import FakeRegistry


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def bridge_ingest() -> Iterator[Ingest]:
    ingest = Ingest()
    yield ingest
    ingest.close()


@pytest.fixture
def bridge_start(mosquitto: Broker, bridge_ingest: Ingest) -> Iterator[Callable[..., BridgeProcess]]:
    """Start a bridge process; arguments are limits and `mutation`."""
    with ExitStack() as stack:

        def start(**arguments: object) -> BridgeProcess:
            process = BridgeProcess(mosquitto, bridge_ingest, **arguments).start()
            stack.callback(process.stop)
            return process

        yield start


@pytest.fixture
def bridge_publisher(mosquitto: Broker) -> Iterator[Publisher]:
    publisher = Publisher(mosquitto)
    yield publisher
    publisher.close()


@pytest.fixture
def registry() -> FakeRegistry:
    """A registry that knows the device `d1`."""
    made = FakeRegistry()
    made.add("d1")
    return made


@pytest.fixture
def app(request: pytest.FixtureRequest, tmp_path: Path, registry: FakeRegistry) -> Iterator[Flask]:
    """The whole ingestion service of the module's `PROTOCOL`."""
    protocol = request.module.PROTOCOL
    config = IngestConfig(protocol=protocol, data=tmp_path, service_token="s", spool_floor_bytes=0)
    made = create_app(config, registry)
    yield made
    made.extensions["headwater.close"]()
