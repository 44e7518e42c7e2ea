"""The registry on a fresh SQLite file and on an emptied PostgreSQL database, alone or beside a real broker."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.config import DevicesConfig
from devices.database.engine import Database
from devices.database.schema import migrate
from tests.devices.postgresql import Cluster
from tests.devices.running import ADMIN, SERVICE, Broker, MqttDevice, Service
from tests.support.waiting import wait_until

ENGINES = ("sqlite", "postgresql")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave a test beside a broker to one engine, by turns: it takes half a second, mostly of the broker's side.

    HEADWATER_TEST_LONG=1 runs it on both.
    """
    if os.environ.get("HEADWATER_TEST_LONG"):
        return
    left = [item for item in items if _has_other_engine(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if not _has_other_engine(item)]


def _has_other_engine(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    engine = call.params.get("config") if call else None
    if engine is None or "broker" not in item.fixturenames:
        return False
    return engine != ENGINES[zlib.crc32(item.originalname.encode()) % 2]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    started = Cluster()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's file as after its first start; copying it takes a tenth of making it."""
    folder = tmp_path_factory.mktemp("made-once")
    database = Database("sqlite:", folder)
    migrate(database, folder)
    database.close()
    return folder / "registry.db"


@pytest.fixture
def first_start(tmp_path: Path) -> DevicesConfig:
    """As a registry that was never started finds it."""
    return DevicesConfig(
        data=tmp_path, broker="", ingest_url="http://127.0.0.1:9", operator_token=ADMIN, service_token=SERVICE
    )


@pytest.fixture
def sqlite_config(first_start: DevicesConfig, made_once: Path) -> DevicesConfig:
    shutil.copyfile(made_once, first_start.data / "registry.db")
    return first_start


@pytest.fixture(params=ENGINES)
def config(request: pytest.FixtureRequest) -> DevicesConfig:
    """A registry that nobody has used yet, on either engine."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_config")
    registry = request.getfixturevalue("postgresql").registry()
    return request.getfixturevalue("first_start").model_copy(update={"registry": registry})


@pytest.fixture(params=ENGINES)
def empty_config(first_start: DevicesConfig, request: pytest.FixtureRequest) -> DevicesConfig:
    """A database without any table, on either engine."""
    if request.param == "sqlite":
        return first_start
    return first_start.model_copy(update={"registry": request.getfixturevalue("postgresql").database()})


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
