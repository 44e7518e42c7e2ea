"""The registry on a fresh SQLite file and on a fresh PostgreSQL database, alone or beside a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.config import DevicesConfig
from tests.devices.postgresql import Cluster
from tests.devices.running import ADMIN, SERVICE, Broker, MqttDevice, Service
from tests.support.waiting import wait_until


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    started = Cluster()
    yield started
    started.stop()


@pytest.fixture
def sqlite_config(tmp_path: Path) -> DevicesConfig:
    return DevicesConfig(
        data=tmp_path, broker="", ingest_url="http://127.0.0.1:9", operator_token=ADMIN, service_token=SERVICE
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def config(sqlite_config: DevicesConfig, request: pytest.FixtureRequest) -> DevicesConfig:
    if request.param == "sqlite":
        return sqlite_config
    return sqlite_config.model_copy(update={"registry": request.getfixturevalue("postgresql").database()})


@pytest.fixture
def service(config: DevicesConfig) -> Iterator[Service]:
    started = Service(config)
    yield started
    started.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as started:
        yield started


@pytest.fixture
def connected_service(broker: Broker, config: DevicesConfig) -> Iterator[Service]:
    started = Service(config.model_copy(update=broker.settings()))
    wait_until(lambda: started.nobody("GET", "/readyz").status_code == 200)
    yield started
    started.stop()


@pytest.fixture
def dial(broker: Broker) -> Iterator[Callable[[str, str], MqttDevice]]:
    made: list[MqttDevice] = []

    def connect(device_id: str, secret: str) -> MqttDevice:
        made.append(MqttDevice(broker, device_id, secret))
        return made[-1]

    yield connect
    for device in made:
        device.close()
