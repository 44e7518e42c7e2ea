"""Changes of devices that come together share a transaction, and none of them feels the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select, text, update

from devices.control.news import COUNTER
from devices.database.engine import Database
from devices.database.schema import migrate
from devices.database.tables import AUDIT, DEVICES
from devices.rows import Deed, NewDevice, Who
from devices.store import DeviceStore
from tests.support.tiny_loop import TinyLoop
from tests.support.waiting import wait_until
from wire.errors import HeadwaterError, Unprocessable
from wire.registry import DeviceView

WHO = Who("token:tests")


@pytest.fixture
def database(config, tmp_path) -> Iterator[Database]:
    opened = Database(config.registry, tmp_path)
    migrate(opened, tmp_path)
    yield opened
    opened.close()


def to(**members: Any) -> Callable[[DeviceView], DeviceView]:
    return lambda old: old.model_copy(update=members)


def faulty(_old: DeviceView) -> DeviceView:
    raise ZeroDivisionError


def refused(_old: DeviceView) -> DeviceView:
    raise Unprocessable("too much", code="too_much")


def change_together(database: Database, store: DeviceStore, *wanted: tuple[str, Any]) -> list[Any]:
    """Ask for changes on an event loop while somebody else writes; give what each was told."""
    loop, said = TinyLoop(), dict[int, Any]()

    def ask(number: int, device: str, change: Any) -> None:
        try:
            said[number] = store.update(device, change, Deed(WHO, "device.update", device))
        except HeadwaterError as error:
            said[number] = error.code
        except ZeroDivisionError:
            said[number] = "fault"

    with database.write():
        loop.begin(lambda: ask(-1, "d0", to(tags={"first": "1"})))  # begins the work, and waits for the lock
        for number, (device, change) in enumerate(wanted):
            loop.begin(lambda number=number, device=device, change=change: ask(number, device, change))
        assert said == {}
    loop.run_until(lambda: len(said) == len(wanted) + 1)
    return [said[number] for number in range(len(wanted))]


def test_changes_that_come_together_are_one_transaction(database) -> None:
    store = DeviceStore(database)
    store.add([NewDevice(name, None, {}, False, None) for name in ("d0", "d1", "d2")], WHO, "device.create")

    told = change_together(
        database, store, ("d1", to(tags={"a": "1"})), ("none", to(tags={})), ("d2", refused),
        ("d1", lambda old: old.model_copy(update={"tags": {**old.tags, "b": "2"}})), ("d2", to(tags={"c": "3"})),
    )  # fmt: skip

    assert [each if isinstance(each, str) else each.tags for each in told] == [
        {"a": "1"}, "device_not_found", "too_much", {"a": "1", "b": "2"}, {"c": "3"},
    ]  # fmt: skip
    assert store.find("default", "d1").tags == {"a": "1", "b": "2"}
    with database.read() as connection:
        rows = connection.execute(select(AUDIT.c.object, AUDIT.c.time_ns).where(AUDIT.c.action == "device.update"))
        audited = rows.all()
    assert sorted(name for name, _ in audited) == ["d0", "d1", "d1", "d2"]
    assert len({time_ns for name, time_ns in audited if name != "d0"}) == 1


@pytest.mark.parametrize(("change", "code"), [(to(state=None), "conflict"), (faulty, "fault")])
def test_what_one_fails_with_is_not_felt_by_the_others(database, change: Any, code: str) -> None:
    store = DeviceStore(database)
    store.add([NewDevice(name, None, {}, False, None) for name in ("d0", "d1", "d2")], WHO, "device.create")

    told = change_together(database, store, ("d1", to(tags={"a": "1"})), ("d2", change), ("d1", to(tags={"a": "2"})))

    assert [each if isinstance(each, str) else each.tags for each in told] == [{"a": "1"}, code, {"a": "2"}]
    assert store.find("default", "d1").tags == {"a": "2"}


@pytest.mark.parametrize("config", ["postgresql"], indirect=True)
def test_changes_and_reports_of_the_same_devices_wait_in_no_circle(database) -> None:
    store, told = DeviceStore(database), list[Any]()
    store.add([NewDevice(name, None, {}, False, None) for name in ("d0", "d2", "d1")], WHO, "device.create")
    wanted = ("d2", to(tags={"a": "1"})), ("d1", to(attributes={"fw": "2"}))
    changing = Thread(target=lambda: told.extend(change_together(database, store, *wanted)))

    def is_waiting() -> bool:
        with database.look() as connection:
            waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            return bool(connection.execute(waiting).scalar_one())

    with database.write(COUNTER) as reporting:  # as firmware versions that devices report are noted
        for name in ("d1", "d2"):
            reporting.execute(update(DEVICES).where(DEVICES.c.id == name).values(fw="1"))
            if name == "d1":
                changing.start()
                wait_until(is_waiting)
    changing.join()

    assert [each.tags for each in told] == [{"a": "1"}, {}]
    assert (store.find("default", "d1").fw, store.find("default", "d2").fw) == ("2", "1")
