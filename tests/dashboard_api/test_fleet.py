from __future__ import annotations

import orjson
import pytest

from dashboard_api import fleet as fleet_module
from dashboard_api.directory import PeerDirectory
from dashboard_api.fleet import COUNTS, Balance, Fleet
from dashboard_api.hub import SENT, Hub
from tests.dashboard_api.fakes import FakePeer, Platform, demo


def fleet_of(platform: Platform, hub: Hub | None = None) -> Fleet:
    return Fleet(PeerDirectory(FakePeer(platform)), FakePeer(platform), hub or Hub())


def later(fleet: Fleet, seconds: float) -> None:
    """Move what the fleet remembers into the past."""
    assert fleet._known
    fleet._known = {tenant: (at - seconds, balance) for tenant, (at, balance) in fleet._known.items()}
    fleet._samples = type(fleet._samples)(((at - seconds, n) for at, n in fleet._samples), fleet._samples.maxlen)


def test_figures_of_a_whole_platform():
    found = fleet_of(demo()[0]).figures("viewer-token")

    assert (found.devices, found.online, found.lag_s, found.missing) == (20, 18, 0.04, [])
    assert (found.gaps.readings, found.gaps.devices) == (12, 3)
    assert found.balance.is_balanced


def test_rate_is_what_was_received_between_two_looks():
    platform = demo()[0]
    fleet = fleet_of(platform)
    fleet.figures("viewer-token")
    later(fleet, 5.0)
    platform.ledger["received"] += 500

    assert fleet.figures("viewer-token").rate_s == pytest.approx(100, rel=0.05)


def test_rate_starts_anew_when_the_count_does():
    platform = demo()[0]
    fleet = fleet_of(platform)
    fleet.figures("viewer-token")
    later(fleet, 5.0)
    platform.ledger["received"] = 3

    assert fleet.figures("viewer-token").rate_s == 0


def test_ledger_is_asked_once_a_second_for_all_viewers():
    platform = demo()[0]
    fleet = fleet_of(platform)

    for _ in range(5):
        fleet.figures("viewer-token")

    assert [path for _, path, _ in platform.calls].count("/v1/ledger") == 1
    assert fleet_module.FRESH_S == 1.0


def test_each_tenant_has_its_own_ledger_and_no_rate_of_the_installation():
    platform = demo()[0]
    fleet = fleet_of(platform)
    home = fleet.figures("viewer-token").to_json()
    platform.ledger |= {"received": None, "accepted": None, "pending": None, "stored": 1, "lag_s": None}

    theirs = fleet.figures("viewer-token", "acme").to_json()

    assert (theirs["ledger"]["stored"], theirs["ledger"]["pending"], theirs["balanced"]) == (1, None, None)
    assert (theirs["lag_s"], theirs["rate_s"], theirs["missing"], theirs["delays"]) == (None, 0, [], None)
    assert fleet.figures("viewer-token").to_json()["ledger"] == home["ledger"]


def test_absent_services_are_named_and_their_figures_missing():
    platform = demo()[0]
    platform.away |= {"devices", "ingest"}

    found = fleet_of(platform).figures("viewer-token")

    assert found.missing == ["devices", "ingest"]
    assert (found.devices, found.balance, found.lag_s) == (None, None, None)
    assert found.to_json()["ledger"] is None


@pytest.mark.parametrize(
    ("changed", "short"), [({}, (0, 0)), ({"received": 11}, (1, 0)), ({"stored": 6}, (0, 1)), ({"pending": 3}, (0, -1))]
)
def test_balance_tells_what_is_short(changed, short):
    counts = dict.fromkeys(COUNTS, 0) | {"received": 10, "accepted": 9, "stored": 7, "pending": 2, "refused": 1}

    balance = Balance(counts | changed)

    assert (balance.ends_short, balance.stored_short) == short
    assert balance.is_balanced == (short == (0, 0))


def test_delays_of_each_class_are_side_by_side():
    platform, hub = demo()[0], Hub()
    told = {"senml-test/mqtt": {"p50": 0.01, "p95": 0.02, "p99": 0.03}}
    hub.publish(orjson.dumps({"points": [], "delays": told}))
    SENT.add("senml-test/mqtt", [0], 1_000_000_000)

    delays = fleet_of(platform, hub).figures("viewer-token").to_json()["delays"]

    mine = [delay for delay in delays if delay["kind"] == "senml-test/mqtt"]
    assert [(delay["way"], delay["p99"]) for delay in mine] == [("stored", 0.03), ("sent", 1.0)]
