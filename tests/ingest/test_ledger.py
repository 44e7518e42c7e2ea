"""The balance sheet balances."""

from __future__ import annotations

import pytest

from ingest.ledger import Ledger
from ingest.writer.gaps import Boot
from ingest.writer.state import BootAccount, DeviceBoots, TenantAccount, TenantCount


class FakeQuarantine:
    def totals(self) -> dict[str, int]:
        return {"quarantined": 5, "refused": 7, "bytes": 0}

    def count_by_code(self, device: str, *, tenant: str) -> dict[str, int]:
        return {"bad_time": 2, "bad_name": 1}

    def totals_of(self, tenant: str) -> tuple[int, int]:
        return {"mine": (2, 3)}[tenant]


def nobody(tenant: str) -> TenantAccount:
    return TenantAccount(TenantCount(0, 0), None, 0, 0)


def nothing(device: str, tenant: str) -> DeviceBoots:
    return DeviceBoots([])


@pytest.mark.parametrize(
    ("accepted", "written", "pending"),
    [
        (100, {}, 100),
        (100, {"stored": 60, "duplicates": 10}, 30),
        (100, {"stored": 60, "duplicates": 10, "store_refused": 20, "damaged": 1}, 9),
        (100, {"stored": 101}, 0),
    ],
)
def test_accepted_is_stored_pending_and_duplicates(accepted, written, pending) -> None:
    totals = Ledger(FakeQuarantine(), lambda: accepted, lambda: written, nothing, nobody).totals()

    assert totals.pending == pending
    assert totals.accepted == accepted - written.get("store_refused", 0) - written.get("damaged", 0)
    assert totals.received == totals.accepted + totals.quarantined + totals.refused
    assert totals.accepted <= totals.stored + totals.pending + totals.duplicates


def test_device_shows_what_waits_by_code() -> None:
    shown = Ledger(FakeQuarantine(), lambda: 0, dict, nothing, nobody).of_device("d1", "default")

    assert (shown.quarantined, shown.by_code) == (3, {"bad_time": 2, "bad_name": 1})
    assert (shown.missing, shown.duplicates, shown.boots) == (0, 0, [])


def test_device_shows_the_account_of_each_boot() -> None:
    old, new = Boot(duplicates=2, began_ns=1), Boot(duplicates=1, began_ns=2)
    for number in range(0, 100, 2):
        old.add(number)
    for number in (3, 4, 6):
        new.add(number)
    for boot in (old, new):
        boot.settle(2**63)
    found = DeviceBoots([BootAccount("a", old, 8), BootAccount("b", new, 7)], 4, 10, 20)

    shown = Ledger(FakeQuarantine(), lambda: 0, dict, lambda device, tenant: found, nobody).of_device("d1", "default")

    assert (shown.missing, shown.duplicates, shown.dropped.boots) == (49 + 1 + 10, 2 + 1 + 20, 4)
    first, second = shown.boots
    assert (first.boot_id, first.missing, len(first.missing_ranges), first.is_truncated) == ("a", 49, 32, True)
    assert second.model_dump(exclude={"began", "seen"}) == {
        "boot_id": "b", "is_current": True, "first": 3, "contiguous_to": 4, "newest": 6, "missing": 1,
        "missing_ranges": [(5, 5)], "is_truncated": False, "duplicates": 1, "restarts": 0, "jumps": 0,
    }  # fmt: skip


@pytest.mark.parametrize("is_known", [True, False])
def test_tenant_adds_up_or_does_not_tell_what_it_cannot(is_known: bool) -> None:
    account = TenantAccount(TenantCount(60, 10), 9, 4, 1, 30 * is_known, None, is_known)

    shown = Ledger(FakeQuarantine(), lambda: 0, dict, nothing, lambda tenant: account).of_tenant("mine")

    told = shown.model_dump(exclude={"since"})
    sums = {"received": 105, "accepted": 100, "pending": 30, "lag_s": 0.0}
    assert told == {
        "tenant": "mine", "stored": 60, "duplicates": 10, "quarantined": 2, "refused": 3, "missing": 4,
        "devices_with_gaps": 1,
    } | (sums if is_known else dict.fromkeys(sums))  # fmt: skip
