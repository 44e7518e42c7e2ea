from __future__ import annotations

import time

import pytest

from devices.database.engine import Database
from devices.tenants.usage import DAY_NS, MONTH_DAYS, UsageStore
from tests.devices.running import ADMIN, Caller, Service
from tests.support.waiting import wait_until
from wire.tenants import Spent

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


@pytest.mark.parametrize("spent", [{"messages": -1}, {"messages": 1.5}, {"fee": 1}])
def test_odd_report_is_refused(tenants: Service, spent: dict[str, float]) -> None:
    assert tenants.internal("POST", "/internal/usage", {"tenants": {"acme": spent}}).status_code == 422


def test_days_and_months_end(tenants: Service) -> None:
    database = Database(tenants.config.registry, tenants.config.data)
    usage = UsageStore(database)
    usage.add({"acme": Spent(messages=7, feed_readers=2)})
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
