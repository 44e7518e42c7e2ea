"""Verification says exactly what a platform lost and doubled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from simulators.http import parse_url
from simulators.ledger import Accounts, Ledger, read_ledger
from simulators.outbox import Outgoing
from simulators.platform_api import PlatformApi
from simulators.verify import Verdict, Verifier
from tests.simulators.fakes import FakePlatform, until
from wire import clock

START_MS = clock.now_ns() // 1_000_000
COUNT = 50


def kept(tmp_path: Path, unacked: int = 0, malformed: int = 0) -> Accounts:
    """A ledger of two devices: of the first, the last few were not acknowledged."""
    head: dict[str, Any] = {
        "start_ns": START_MS * 1_000_000,
        "ts_ns": 1_000_000,
        "devices": ["d0", "d1"],
        "boot_ids": ["b", "b"],
    }
    head["fields"] = [2, 2]
    ledger = Ledger(tmp_path / "ledger", head)
    for device in (0, 1):
        for seq in range(COUNT):
            outgoing = Outgoing(device, seq, START_MS + seq, b"")
            ledger.append(outgoing, is_ack=False)
            if device or seq < COUNT - unacked:
                ledger.append(outgoing, is_ack=True)
    for seq in range(malformed):
        outgoing = Outgoing(0, COUNT + seq, START_MS + COUNT + seq, b"", is_malformed=True)
        ledger.append(outgoing, is_ack=False)
        ledger.append(outgoing, is_ack=True)
    ledger.close()
    return read_ledger(tmp_path / "ledger")


def fill(platform: FakePlatform) -> None:
    for device_id in ("d0", "d1"):
        for seq in range(COUNT):
            platform._store(device_id, START_MS + seq, {"t": 1.0, "u": 2.0})


def verify(platform: FakePlatform, accounts: Accounts, settle_s: float = 0.1, deadline_s: float = 5.0) -> Verdict:
    async def scene() -> Any:
        api = PlatformApi(parse_url(platform.url), "operator")
        try:
            return await Verifier(api, accounts, deadline_s).verify(settle_s)
        finally:
            api.close()

    return asyncio.run(scene())


def test_whole_run_has_no_faults(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)

    assert verify(platform, kept(tmp_path)) == Verdict(stored=2 * COUNT)


def test_lost_readings_are_counted_exactly(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)
    del platform.rows["d1"][10:17]

    verdict = verify(platform, kept(tmp_path))

    assert verdict == Verdict(stored=2 * COUNT - 7, lost=7, lost_devices=["d1"])


def test_lost_but_unacknowledged_readings_are_no_loss(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)
    del platform.rows["d0"][-5:]

    verdict = verify(platform, kept(tmp_path, unacked=5))

    assert (verdict.stored, verdict.lost) == (2 * COUNT - 5, 0)


def test_stored_but_unacknowledged_readings_are_fine(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)

    assert verify(platform, kept(tmp_path, unacked=5)) == Verdict(stored=2 * COUNT)


def test_second_row_of_a_time_is_a_duplicate(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)
    platform.rows["d0"] += platform.rows["d0"][:3]

    assert verify(platform, kept(tmp_path)) == Verdict(stored=2 * COUNT, duplicates=3)


def test_row_at_a_time_never_sent_is_a_duplicate(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)
    platform._store("d1", START_MS + COUNT + 500, {"t": 1.0, "u": 2.0})

    assert verify(platform, kept(tmp_path)) == Verdict(stored=2 * COUNT, duplicates=1)


def test_time_that_lost_its_precision_is_lost_and_doubled(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)
    row = platform.rows["d1"][4]
    platform.rows["d1"][4] = row | {"time": clock.format_ns(clock.parse_time(row["time"]) + 1)}

    verdict = verify(platform, kept(tmp_path))

    assert (verdict.lost, verdict.duplicates) == (1, 1)


def test_rows_of_an_earlier_run_do_not_count(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)
    platform._store("d1", START_MS - 60_000, {"t": 1.0, "u": 2.0})

    assert verify(platform, kept(tmp_path)) == Verdict(stored=2 * COUNT)


def test_reading_with_a_missing_field_is_told(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)
    platform.rows["d1"][3]["fields"] = {"t": 1.0}

    assert verify(platform, kept(tmp_path)) == Verdict(stored=2 * COUNT, incomplete=1)


@pytest.mark.parametrize(("kept_there", "lost"), [(3, 0), (1, 2), (4, 0)])
def test_malformed_messages_are_looked_for_in_quarantine(
    platform: FakePlatform, tmp_path: Path, kept_there: int, lost: int
) -> None:
    fill(platform)
    old = {"time": clock.format_ns((START_MS - 1000) * 1_000_000)}
    new = {"time": clock.format_ns((START_MS + 1000) * 1_000_000)}
    platform.quarantine["d0"] = [old, *[new] * kept_there]

    verdict = verify(platform, kept(tmp_path, malformed=3))

    assert (verdict.quarantined, verdict.lost) == (kept_there, lost)


def test_all_pages_are_read(platform: FakePlatform, tmp_path: Path) -> None:
    platform.page = 7
    fill(platform)

    assert verify(platform, kept(tmp_path)) == Verdict(stored=2 * COUNT)


def test_pending_readings_are_waited_for(platform: FakePlatform, tmp_path: Path) -> None:
    platform.pending_polls = 5
    fill(platform)

    assert verify(platform, kept(tmp_path)) == Verdict(stored=2 * COUNT)
    assert platform.pending_polls <= 0


def test_what_arrives_late_is_not_lost(platform: FakePlatform, tmp_path: Path) -> None:
    fill(platform)
    last = platform.rows["d1"].pop()
    platform.rows["d1"].append(last | {"time": clock.format_ns(0)})

    async def scene() -> Verdict:
        api = PlatformApi(parse_url(platform.url), "operator")
        task = asyncio.create_task(Verifier(api, kept(tmp_path), 10.0).verify(10.0))
        try:
            await until(lambda: platform.pending_polls <= -4)  # the verifier has looked and looks again
            platform.rows["d1"][-1] = last
            return await task
        finally:
            api.close()

    assert asyncio.run(scene()) == Verdict(stored=2 * COUNT)


def test_deadline_ends_the_wait_for_what_stays_pending(platform: FakePlatform, tmp_path: Path) -> None:
    platform.pending_polls = 10**6
    fill(platform)

    verdict = verify(platform, kept(tmp_path), deadline_s=0.3)

    assert verdict.stored == 2 * COUNT
    assert not verdict.drained
