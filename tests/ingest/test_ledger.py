"""The balance sheet balances."""

from __future__ import annotations

import pytest

from ingest.ledger import Ledger


class FakeQuarantine:
    def totals(self) -> dict[str, int]:
        return {"quarantined": 5, "refused": 7, "bytes": 0}

    def count_by_code(self, device: str) -> dict[str, int]:
        return {"bad_time": 2, "bad_name": 1}


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
    totals = Ledger(FakeQuarantine(), lambda: accepted, lambda: written).totals()

    assert totals.pending == pending
    assert totals.accepted == accepted - written.get("store_refused", 0) - written.get("damaged", 0)
    assert totals.received == totals.accepted + totals.quarantined + totals.refused
    assert totals.accepted <= totals.stored + totals.pending + totals.duplicates


def test_device_shows_what_waits_by_code() -> None:
    shown = Ledger(FakeQuarantine(), lambda: 0, dict).of_device("d1")

    assert (shown.quarantined, shown.by_code) == (3, {"bad_time": 2, "bad_name": 1})
