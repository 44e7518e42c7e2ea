from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from devices.database.engine import Database
from devices.database.tables_usage import USAGE_DEVICES, USAGE_TYPES
from devices.tenants.usage import DAY_NS, DEVICE_DAYS, MONTH_DAYS, TYPE_DAYS, UsageStore
from tests.devices.running import ADMIN, Caller, Service
from tests.support.waiting import wait_until
from wire.usage import Spent, UsageReport

FIRST = {"messages": 2, "points": 5, "bytes": 300}


def report(service: Service, **tenants: dict[str, int]) -> None:
    assert service.internal("POST", "/internal/usage", {"tenants": tenants}).status_code == 204


@pytest.fixture
def tenants(service: Service) -> Service:
    for tenant in ("acme", "other"):
        assert service.admin("POST", "/v1/tenants", {"id": tenant}).status_code == 201
    return service


def test_reports_of_all_services_add_up(tenants: Service) -> None:
    report(tenants, acme=FIRST, other={"messages": 1})
    report(tenants, acme=FIRST | {"feed_readers": 3})
    report(tenants, acme={"feed_readers": 2})

    shown = tenants.admin("GET", "/v1/tenants/acme").json

    spent = {"messages": 4, "points": 10, "bytes": 600, "feed_readers": 3}
    assert (shown["today"], shown["month"], shown["connections"]) == (spent, spent, 0)
    items = {each["id"]: each["month"]["messages"] for each in tenants.admin("GET", "/v1/tenants").json["items"]}
    assert items == {"acme": 4, "default": 0, "other": 1}


def test_usage_is_that_of_the_own_tenant(tenants: Service) -> None:
    report(tenants, acme=FIRST)
    viewer = {}
    for tenant in ("acme", "other"):
        made = Caller(tenants.app, f"{ADMIN}@{tenant}")("POST", "/v1/tokens", {"name": "v", "role": "viewer"})
        viewer[tenant] = Caller(tenants.app, made.json["token"])("GET", "/v1/usage").json

    assert [(each["id"], each["today"]["points"]) for each in viewer.values()] == [("acme", 5), ("other", 0)]


def test_each_of_the_last_days_is_told_to_its_tenant_only(tenants: Service) -> None:
    database = Database(tenants.config.registry, tenants.config.data)
    UsageStore(database).add(UsageReport(tenants={"acme": Spent(**FIRST, feed_readers=2)}))
    acme, other = Caller(tenants.app, f"{ADMIN}@acme"), Caller(tenants.app, f"{ADMIN}@other")

    days = acme("GET", "/v1/usage/days?days=3").json["items"]
    others = other("GET", "/v1/usage/days").json["items"]
    later = UsageStore(database).days(time.time_ns() + DAY_NS, "acme", 2)
    database.close()

    assert [each["points"] for each in days] == [5, 0, 0]
    assert days[0] == FIRST | {"feed_readers": 2, "day": time.strftime("%Y-%m-%d", time.gmtime())}
    assert (len(others), {each["points"] for each in others}) == (30, {0})
    assert [each.points for each in later] == [0, 5]
    assert acme("GET", "/v1/usage/days?days=401").status_code == 400


@pytest.mark.parametrize("spent", [{"messages": -1}, {"messages": 1.5}, {"fee": 1}])
def test_odd_report_is_refused(tenants: Service, spent: dict[str, float]) -> None:
    assert tenants.internal("POST", "/internal/usage", {"tenants": {"acme": spent}}).status_code == 422


def test_days_and_months_end(tenants: Service) -> None:
    database = Database(tenants.config.registry, tenants.config.data)
    usage = UsageStore(database)
    usage.add(UsageReport(tenants={"acme": Spent(messages=7, feed_readers=2)}))
    now_ns = time.time_ns()

    def seen(days: int) -> tuple[int, int]:
        used = usage.used(now_ns + days * DAY_NS)["acme"]
        return used.today.messages, used.month.messages

    found = [seen(days) for days in (0, 1, MONTH_DAYS - 1, MONTH_DAYS)]
    database.close()
    assert found == [(7, 7), (0, 7), (0, 7), (0, 0)]


def test_connections_are_those_of_the_tenants_devices(connected_service: Service, dial) -> None:
    dial("d1", connected_service.register("d1"))

    wait_until(lambda: connected_service.admin("GET", "/v1/usage").json["connections"] == 1)


def test_tenant_that_is_full_keeps_who_came_first_and_lets_in_when_one_goes(connected_service: Service, dial) -> None:
    secrets = {name: connected_service.register(name) for name in ("d1", "d2", "d3")}
    first, second = (dial(name, secrets[name]) for name in ("d1", "d2"))
    wait_until(lambda: first.is_connected() and second.is_connected())
    wait_until(lambda: connected_service.admin("GET", "/v1/usage").json["connections"] == 2)
    listed = Path(connected_service.config.broker_passwd_file)
    wait_until(lambda: "d3:" in listed.read_text())
    came = list(first.codes)

    limits = {"limits": {"connections": 2}}
    assert connected_service.admin("PATCH", "/v1/tenants/default", limits).status_code == 200
    wait_until(lambda: "d3:" not in listed.read_text())
    third = dial("d3", secrets["d3"])
    wait_until(lambda: "Not authorized" in third.codes)
    assert first.is_connected()
    assert second.is_connected()

    second.close()
    wait_until(third.is_connected)
    assert first.codes == came


def test_more_than_may_come_at_once_are_cut_to_the_limit(connected_service: Service, dial) -> None:
    assert connected_service.admin("PATCH", "/v1/tenants/default", {"limits": {"connections": 2}}).status_code == 200
    secrets = {name: connected_service.register(name) for name in ("d1", "d2", "d3", "d4")}
    listed = Path(connected_service.config.broker_passwd_file)
    wait_until(lambda: "d4:" in listed.read_text())

    devices = [dial(name, secret) for name, secret in secrets.items()]

    def connected() -> int:
        return sum(device.is_connected() for device in devices)

    def refused() -> int:
        return sum(device.codes.count("Not authorized") >= 2 for device in devices)

    wait_until(lambda: (connected(), refused()) == (2, 2))
    assert connected_service.admin("PATCH", "/v1/tenants/default", {"limits": {"connections": None}}).status_code == 200
    wait_until(lambda: connected() == 4)


TOLD = {
    "types": {"acme": {"pump": [3, 6, 90], "": [1, 1, 10]}, "other": {"pump": [7, 7, 7]}},
    "devices": {"acme": {"d1": [1, 1, 80], "d2": [2, 5, 10], "d3": [1, 1, 10]}, "other": {"d1": [7, 7, 7]}},
}


def tell(service: Service, **told: object) -> None:
    assert service.internal("POST", "/internal/usage", told).status_code == 204


def test_what_types_sent_is_their_tenants_too(tenants: Service) -> None:
    tell(tenants, **TOLD)
    tell(tenants, **TOLD)
    acme = Caller(tenants.app, f"{ADMIN}@acme")

    assert acme("GET", "/v1/usage").json["today"] == {"messages": 8, "points": 14, "bytes": 200, "feed_readers": 0}
    assert acme("GET", "/v1/usage/types").json["items"] == [
        {"type": "pump", "messages": 6, "points": 12, "bytes": 180},
        {"type": None, "messages": 2, "points": 2, "bytes": 20},
    ]


@pytest.mark.parametrize(
    ("asked", "order"),
    [("", ["d2", "d1", "d3"]), ("?order=bytes", ["d1", "d2", "d3"]), ("?limit=1&order=points&days=8", ["d2"])],
)
def test_devices_that_sent_most_come_first(tenants: Service, asked: str, order: list[str]) -> None:
    tell(tenants, **TOLD)

    found = Caller(tenants.app, f"{ADMIN}@acme")("GET", f"/v1/usage/devices{asked}").json["items"]

    assert [each["device"] for each in found] == order


def test_device_has_its_own_days_in_its_tenant_only(tenants: Service) -> None:
    acme, other = Caller(tenants.app, f"{ADMIN}@acme"), Caller(tenants.app, f"{ADMIN}@other")
    acme("POST", "/v1/devices", {"id": "d1"})
    tell(tenants, **TOLD)

    days = acme("GET", "/v1/devices/d1/usage").json["items"]

    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert days[0] == {"day": today, "messages": 1, "points": 1, "bytes": 80}
    assert [each["messages"] for each in days[1:]] == [0] * 7
    assert other("GET", "/v1/devices/d1/usage").status_code == 404
    assert acme("GET", "/v1/devices/d2/usage").status_code == 404


def test_days_of_types_and_devices_are_forgotten_in_parts(tenants: Service, monkeypatch) -> None:
    monkeypatch.setattr("devices.tenants.usage.FORGOTTEN", 2)
    database = Database(tenants.config.registry, tenants.config.data)
    usage, old = UsageStore(database), UsageReport.model_validate(TOLD)
    now_ns = time.time_ns()
    for days in (TYPE_DAYS, DEVICE_DAYS, DEVICE_DAYS - 1, 0):
        monkeypatch.setattr("devices.database.engine.clock.now_ns", lambda days=days: now_ns - days * DAY_NS)
        usage.add(old)

    def kept(table) -> list[tuple[int, int]]:
        with database.read() as connection:
            query = select(table.c.day, func.count()).where(table.c.tenant == "acme").group_by(table.c.day)
            return [(now_ns // DAY_NS - day, count) for day, count in connection.execute(query.order_by(table.c.day))]

    once = kept(USAGE_DEVICES)
    usage.add(old)
    usage.add(old)
    types, devices = kept(USAGE_TYPES), kept(USAGE_DEVICES)
    database.close()
    assert once == [(DEVICE_DAYS, 1), (DEVICE_DAYS - 1, 3), (0, 3)]
    assert types == [(DEVICE_DAYS, 2), (DEVICE_DAYS - 1, 2), (0, 2)]
    assert devices == [(DEVICE_DAYS - 1, 3), (0, 3)]


@pytest.mark.parametrize(
    "told",
    [
        {"devices": {"acme": {"d1": [1, 2]}}}, {"devices": {"acme": {"../x": [1, 2, 3]}}},
        {"types": {"acme": {"pump": [1, -2, 3]}}}, {"types": {"acme": {"pu mp": [1, 2, 3]}}},
    ],
)  # fmt: skip
def test_odd_shares_are_refused(tenants: Service, told: dict[str, object]) -> None:
    assert tenants.internal("POST", "/internal/usage", told).status_code == 422
