"""The books: an acknowledgement counts once, and with a ledger only when it is on disk."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from simulators.journal import Journal
from simulators.ledger import Ledger, read_ledger
from tests.simulators.fakes import message, until

HEAD = {"start_ns": 0, "ts_ns": 1_000_000, "devices": ["d1"], "boot_ids": ["b"]}


def test_second_acknowledgement_changes_nothing() -> None:
    journal, outgoing = Journal(), message(1)
    outgoing.sent_at = time.monotonic()

    journal.sent(outgoing)
    journal.acked(outgoing)
    journal.acked(outgoing, is_quarantined=True)

    assert (journal.sent_count, journal.acked_count, journal.quarantined_count) == (1, 1, 0)
    assert journal.ack_ms.count == 1


def test_refused_message_stays_unacknowledged() -> None:
    journal, outgoing = Journal(), message(1)

    journal.refused(outgoing)
    journal.acked(outgoing)

    assert (journal.settled_count, journal.acked_count) == (1, 0)


def test_acknowledgement_counts_once_it_is_on_disk(tmp_path: Path) -> None:
    journal = Journal(Ledger(tmp_path / "ledger", HEAD))

    async def scene() -> None:
        keeper = asyncio.create_task(journal.keep())
        journal.acked(message(1))
        assert journal.acked_count == 0
        await until(lambda: journal.acked_count == 1)
        assert list(read_ledger(tmp_path / "ledger").accounts[0].acked) == [message(1).ts]
        journal.acked(message(2))
        journal.end()
        await keeper

    asyncio.run(scene())

    assert journal.acked_count == 2
    assert len(read_ledger(tmp_path / "ledger").accounts[0].acked) == 2


class SlowDisk(Ledger):
    """Takes its time for the first write, until it is let go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, HEAD)
        self.is_writing, self.may_go_on = threading.Event(), threading.Event()

    def write(self, data: bytes) -> None:
        if hasattr(self, "is_writing") and not self.is_writing.is_set():
            self.is_writing.set()
            assert self.may_go_on.wait(10)
        super().write(data)


def test_acknowledgements_during_the_last_sync_count(tmp_path: Path) -> None:
    ledger = SlowDisk(tmp_path / "ledger")
    journal = Journal(ledger)

    async def scene() -> None:
        keeper = asyncio.create_task(journal.keep())
        journal.acked(message(1))
        await until(ledger.is_writing.is_set)
        journal.acked(message(2))
        journal.end()
        ledger.may_go_on.set()
        await keeper

    asyncio.run(scene())

    assert journal.acked_count == 2


class FullDisk:
    def append(self, *_: object, **__: object) -> None: ...

    def take(self) -> tuple[bytes, int]:
        return b"x", 1

    def write(self, data: bytes) -> None:
        raise OSError(28, "No space left on device")


def test_ledger_that_cannot_be_written_ends_the_run() -> None:
    journal = Journal(FullDisk())  # type: ignore[arg-type]

    with pytest.raises(OSError, match="No space"):
        asyncio.run(journal.keep())
    assert journal.acked_count == 0
