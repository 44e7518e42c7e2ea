from __future__ import annotations

import orjson
import pytest
from sqlalchemy import insert

from devices.database.engine import Database
from devices.database.schema import migrate
from devices.database.tables import DEVICE_TYPES
from devices.presence.state import Evidence, Kind, judge, silence_limit_s
from devices.presence.store import PresenceStore
from devices.rows import NewDevice, Who
from devices.store import DeviceStore
from wire.clock import NS_PER_S

T0 = 1_800_000_000 * NS_PER_S
WHO = Who("tests")


@pytest.fixture
def database(config):
    opened = Database(config.registry, config.data)
    migrate(opened, config.data)
    yield opened
    opened.close()


def online(database: Database, kind: Kind, *devices: tuple[str, str | None, float]) -> PresenceStore:
    """Register devices (id, type, heard at) and let them be heard once."""
    store = PresenceStore(database)
    DeviceStore(database).add([NewDevice(id_, worn, {}, False, None) for id_, worn, _ in devices], WHO, "t")
    at_ns = {id_: T0 + int(at_s * NS_PER_S) for id_, _, at_s in devices}
    store.change(list(at_ns), lambda id_, mark: judge(mark, Evidence(kind, id_, at_ns[id_])))
    return store


def now_online(database: Database) -> list[str]:
    return [each for each in ("a", "b", "c", "d") if DeviceStore(database).find("default", each).online]


def limit_s(interval_s: float | None) -> float:
    return silence_limit_s(interval_s, 300)


def put_type(database: Database, name: str, interval_s: float) -> None:
    spec = orjson.dumps({"expected_interval_s": interval_s}).decode()
    with database.write() as transaction:
        transaction.execute(insert(DEVICE_TYPES).values(tenant="default", name=name, version=1, spec=spec))


def test_unconnected_device_goes_after_the_limit_of_its_type(database) -> None:
    put_type(database, "quick", 10)
    put_type(database, "slow", 1000)
    store = online(database, "seen", ("a", None, 0), ("b", "quick", 270), ("c", "slow", 0), ("d", "other", 1))

    gone = store.silence(limit_s, T0 + 301 * NS_PER_S)

    assert (gone, now_online(database)) == (2, ["c", "d"])
    assert store.silence(limit_s, T0 + 301 * NS_PER_S) == 0


def test_connected_device_is_never_silent_but_stale_where_its_type_expects_more(database) -> None:
    put_type(database, "quick", 10)
    store = online(database, "connected", ("a", None, 0), ("b", "quick", 0), ("c", "quick", 80))

    gone = store.silence(limit_s, T0 + 99 * NS_PER_S)
    stale = store.overdue(lambda interval_s: silence_limit_s(interval_s, float("inf")), T0 + 99 * NS_PER_S)

    assert (gone, stale) == (0, 1)
    assert DeviceStore(database).find("default", "b").presence == "stale"
