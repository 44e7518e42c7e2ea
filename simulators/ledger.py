"""The fsync'd ledger: an append-only file of what was sent and what was acknowledged, readable by a program of its own.

Layout: one line of JSON (version, start_ns, ts_ns = ns per unit of ts, devices, boot_ids of their first boots, fields =
how many each reading has), then records of 17 bytes, little-endian: device index u32, seq u32, ts i64, kind u8. A torn
last record is ignored. Several processes may append to one ledger: each write holds whole records.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from simulators.outbox import Outgoing

SENT, ACKED, MALFORMED_SENT, MALFORMED_ACKED = 1, 2, 3, 4
_RECORD = struct.Struct("<IIqB")
_READ_RECORDS = 8192
VERSION = 1


class Ledger:
    """Writer. `append` and `take` belong to the event loop, `write` may run in a thread of its own, one at a time.

    With a head the file begins anew, without one it is gone on with.
    """

    def __init__(self, path: Path, head: dict[str, Any] | None = None) -> None:
        begin = os.O_CREAT | os.O_TRUNC if head is not None else 0
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | begin, 0o600)
        self._buffer = bytearray()
        self._acks = 0
        if head is not None:
            self.write(orjson.dumps({"version": VERSION} | head) + b"\n")

    def append(self, outgoing: Outgoing, *, is_ack: bool) -> None:
        """Note a transmission or an acknowledgement; it counts once written."""
        kind = (MALFORMED_ACKED if is_ack else MALFORMED_SENT) if outgoing.is_malformed else (ACKED if is_ack else SENT)
        self._buffer += _RECORD.pack(outgoing.device, outgoing.seq, outgoing.ts, kind)
        self._acks += is_ack

    def take(self) -> tuple[bytes, int]:
        """Give the bytes not yet written and the number of acknowledgements among them."""
        taken, acks = bytes(self._buffer), self._acks
        self._buffer.clear()
        self._acks = 0
        return taken, acks

    def write(self, data: bytes) -> None:
        """Append and sync to disk.

        Raises:
            OSError: disk full or failing: the ledger is worth nothing, the run has to end.
        """
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)

    def close(self) -> None:
        """Write the rest and close."""
        self.write(self.take()[0])
        os.close(self._file)


@dataclass(slots=True)
class DeviceAccount:
    """What the ledger knows of one device; times as they were sent."""

    sent: array[int] = field(default_factory=lambda: array("q"))
    acked: array[int] = field(default_factory=lambda: array("q"))
    malformed_sent: int = 0
    malformed_acked: int = 0


@dataclass(slots=True)
class Accounts:
    """A ledger as read back: per device, in the order of the head line."""

    devices: list[str]
    start_ns: int
    ts_ns: int
    accounts: list[DeviceAccount]
    fields: list[int]  # how many a reading has


def read_ledger(path: Path) -> Accounts:
    """Read a ledger from disk.

    Raises:
        ValueError: not a ledger of this version.
    """
    with path.open("rb") as file:
        head = _read_head(path, file.readline())
        devices = head["devices"]
        own = [DeviceAccount() for _ in devices]
        accounts = Accounts(devices, head["start_ns"], head["ts_ns"], own, head.get("fields") or [0] * len(devices))
        while chunk := file.read(_RECORD.size * _READ_RECORDS):
            _count(accounts.accounts, _records(chunk))
    return accounts


def _read_head(path: Path, line: bytes) -> dict[str, Any]:
    try:
        head = orjson.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}: not a ledger") from error
    if not isinstance(head, dict) or head.get("version") != VERSION:
        raise ValueError(f"{path}: not a ledger of version {VERSION}")
    return head


def _records(chunk: bytes) -> Iterator[tuple[Any, ...]]:
    return _RECORD.iter_unpack(chunk[: len(chunk) // _RECORD.size * _RECORD.size])


def _count(accounts: list[DeviceAccount], records: Iterator[tuple[Any, ...]]) -> None:
    for device, _, ts, kind in records:
        account = accounts[device]
        if kind == SENT:
            account.sent.append(ts)
        elif kind == ACKED:
            account.acked.append(ts)
        elif kind == MALFORMED_SENT:
            account.malformed_sent += 1
        else:
            account.malformed_acked += 1
