"""The ledger file: what is written is read back, torn tails are ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulators.ledger import Ledger, read_ledger
from simulators.outbox import Outgoing

HEAD = {"start_ns": 5, "ts_ns": 1_000_000, "devices": ["a", "b"], "boot_ids": ["x", "y"]}


def outgoing(device: int, seq: int, *, is_malformed: bool = False) -> Outgoing:
    return Outgoing(device, seq, 1_700_000_000_000 + seq, b"", is_malformed)


def write(path: Path) -> None:
    ledger = Ledger(path, HEAD)
    for device, seq in ((0, 1), (1, 1), (0, 2)):
        ledger.append(outgoing(device, seq), is_ack=False)
    ledger.append(outgoing(0, 1), is_ack=True)
    ledger.append(outgoing(1, 2, is_malformed=True), is_ack=False)
    ledger.append(outgoing(1, 2, is_malformed=True), is_ack=True)
    ledger.close()


def test_written_ledger_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "ledger")

    found = read_ledger(tmp_path / "ledger")

    assert (found.devices, found.start_ns, found.ts_ns) == (["a", "b"], 5, 1_000_000)
    assert list(found.accounts[0].sent) == [1_700_000_000_001, 1_700_000_000_002]
    assert list(found.accounts[0].acked) == [1_700_000_000_001]
    assert list(found.accounts[1].sent) == [1_700_000_000_001]
    assert (found.accounts[1].malformed_sent, found.accounts[1].malformed_acked) == (1, 1)


def test_torn_tail_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    write(path)
    whole = path.read_bytes()
    for cut in range(1, 17):
        path.write_bytes(whole[:-cut])

        assert read_ledger(path).accounts[1].malformed_acked == 0


def test_nothing_counts_before_it_is_taken_and_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", HEAD)
    ledger.append(outgoing(0, 1), is_ack=False)
    ledger.append(outgoing(0, 1), is_ack=True)

    data, acks = ledger.take()

    assert acks == 1
    assert not read_ledger(tmp_path / "ledger").accounts[0].acked
    ledger.write(data)
    assert list(read_ledger(tmp_path / "ledger").accounts[0].acked) == [1_700_000_000_001]
    ledger.close()


def test_ledger_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    write(tmp_path / "ledger")

    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600


def test_other_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text('{"version":9}\n')

    with pytest.raises(ValueError, match="not a ledger of version 1"):
        read_ledger(tmp_path / "ledger")
