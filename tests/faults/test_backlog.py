"""F5: what a fleet of 5,000 readings a second hands in while the store is away is held, in little memory, and then
drained in order per device while the fleet goes on sending, faster than it comes.

HEADWATER_TEST_LONG=1 holds 30 minutes' worth, 9 million readings, handed in as fast as ingestion takes them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.checker.api import BROKEN, Door
from tests.faults.rig import RiggedSite

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
RATE = 5_000
WORTH_S = 1_800 if os.environ.get("HEADWATER_TEST_LONG") else 8
DEVICES, SENDERS, BODY, TRIES = 100, 4, 500, 100
PIECE = 50  # readings of a post while it drains
ROUNDS = 2  # of posts of all devices, at least, between the store's return and the end of the backlog
MEMORY_MB = 300
WATCHED = 3  # devices whose stored readings are looked at while it drains
LIMIT_S = 1_800.0 if WORTH_S > 60 else 120.0


class Fleet(NamedTuple):
    """Devices that each number their readings from 0, spread over the time of the outage."""

    bearers: dict[str, str]
    each: int
    begin_ms: int

    def body(self, first: int, end: int) -> bytes:
        step_ms = WORTH_S * 1_000 / self.each
        return b"\n".join(
            b'{"boot_id":"b","seq":%d,"ts":%d,"values":{"n":%d,"v":%.2f}}'
            % (seq, self.begin_ms + int(seq * step_ms), seq, seq / 7)
            for seq in range(first, end)
        )


@pytest.fixture
def one_worker(tmp_path: Path) -> Iterator[RiggedSite]:
    """As it comes: several workers keep a device's order only to within a turn of the writer."""
    site = RiggedSite(tmp_path).start()
    yield site
    site.stop()


def test_backlog_is_held_in_little_memory_and_drained_in_order(one_worker: RiggedSite) -> None:
    site, names = one_worker, [f"backlog-{number}" for number in range(DEVICES)]
    bearers = {each: site.door.register(each)["bearer"] for each in names}
    noon_ms = (int(time.time()) // 86_400 * 86_400 - 43_200) * 1_000  # of yesterday: a look is then at one day alone
    fleet = Fleet(bearers, RATE * WORTH_S // DEVICES, noon_ms)
    site.set_store("down")
    memory = Memory(site)
    began_s = time.monotonic()

    hand_in(site, fleet)
    held_s, held_mb = time.monotonic() - began_s, memory.look()
    count = fleet.each * DEVICES
    assert site.installation.get("/v1/ledger")["pending"] == count, "all of it waits in the spool"
    flow = Flow(site, fleet)
    site.set_store("")
    began_s = time.monotonic()
    left = watch_drain(site, names[:WATCHED], memory, lambda pending: pending < count / 4 and flow.rounds >= ROUNDS)
    took_s = time.monotonic() - began_s
    ends = flow.stop()
    came = sum(ends.values()) - count
    watch_drain(site, names[:WATCHED], memory, lambda pending: pending == 0)

    print(
        f"{count} readings handed in within {held_s:.0f} s; then {came / took_s:.0f}/s came and "
        f"{(count + came - left) / took_s:.0f}/s were drained for {took_s:.0f} s, {(count + came - left) / came:.1f} x "
        f"the input rate; memory of ingestion and writer: {held_mb:.0f} MB while the store was away, "
        f"{memory.peak_mb:.0f} MB at most"
    )
    assert stored(site, names) == {name: Stored(end, end - 1) for name, end in ends.items()}
    assert memory.peak_mb < MEMORY_MB


def hand_in(site: RiggedSite, fleet: Fleet) -> None:
    """Post everything, each device's readings in order; what is refused for the moment is posted again."""
    shares = [list(fleet.bearers.values())[number::SENDERS] for number in range(SENDERS)]
    faults: list[str] = []
    senders = [threading.Thread(target=send, args=(site, fleet, share, faults)) for share in shares]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert not faults, faults


def send(site: RiggedSite, fleet: Fleet, bearers: list[str], faults: list[str]) -> None:
    doors = [Door(site.installation.url, bearer) for bearer in bearers]
    for first in range(0, fleet.each, BODY):
        body = fleet.body(first, min(first + BODY, fleet.each))
        for door in doors:
            post(door, body, faults)
    for door in doors:
        door.close()


def post(door: Door, body: bytes, faults: list[str]) -> None:
    for _ in range(TRIES):
        try:
            status, answer, _ = door.call("POST", "/v1/telemetry", body, Content_Type="application/x-ndjson")
        except BROKEN:
            status, answer = 0, b""
        if status == 202:
            return
        time.sleep(0.1)  # as a device would
    faults.append(f"{status} {answer[:200]!r}")


class Flow:
    """The fleet goes on where its backlog ends, at RATE in all, each device in order; begins at once."""

    def __init__(self, site: RiggedSite, fleet: Fleet) -> None:
        self._site, self._fleet = site, fleet
        self._stopping = threading.Event()
        self._faults: list[str] = []
        self._ends = dict.fromkeys(fleet.bearers, fleet.each)
        shares = [list(fleet.bearers)[number::SENDERS] for number in range(SENDERS)]
        self._threads = [threading.Thread(target=self._send, args=(share,)) for share in shares]
        for thread in self._threads:
            thread.start()

    @property
    def rounds(self) -> int:
        """How often each device has posted."""
        return (min(self._ends.values()) - self._fleet.each) // PIECE

    def stop(self) -> dict[str, int]:
        """Give how many readings each device has handed in, those of the backlog included."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        assert not self._faults, self._faults
        return self._ends

    def _send(self, names: list[str]) -> None:
        doors = {name: Door(self._site.installation.url, self._fleet.bearers[name]) for name in names}
        due_s = time.monotonic()
        while not self._stopping.is_set():
            for name, door in doors.items():
                end = self._ends[name] + PIECE
                post(door, self._fleet.body(end - PIECE, end), self._faults)
                self._ends[name] = end
                due_s = max(due_s + SENDERS * PIECE / RATE, time.monotonic() - 1)
                time.sleep(max(0.0, due_s - time.monotonic()))
        for door in doors.values():
            door.close()


def watch_drain(site: RiggedSite, names: list[str], memory: Memory, is_over: Callable[[int], bool]) -> int:
    """Look until it is over, as what is pending tells; give that.

    What is stored of a device must always be its first readings, without a hole.
    """
    looks, deadline_s = 0, time.monotonic() + LIMIT_S
    while not is_over(left := site.installation.get("/v1/ledger")["pending"]):
        assert time.monotonic() < deadline_s, f"it is not drained: {left} are left"
        memory.look()
        for name, found in stored(site, names).items():
            assert found.count == found.newest + 1, f"{name}: {found}"
        looks += 1
    print(f"looked {looks} times while it drained")
    return left


class Stored(NamedTuple):
    """What is stored of a device, at one moment."""

    count: int
    newest: int


def stored(site: RiggedSite, names: list[str]) -> dict[str, Stored]:
    query = "field=n&fn=count&fn=max&every=1d&start=2020-01-01T00:00:00Z&end=2100-01-01T00:00:00Z"
    found = {}
    for name in names:
        rows = site.door.get(f"/v1/query/aggregate?device={name}&{query}")["rows"]
        values = [row["values"]["n"] for row in rows]
        newest = max((int(value["max"]) for value in values), default=-1)
        found[name] = Stored(int(sum(value["count"] for value in values)), newest)
    return found


class Memory:
    """What ingestion and writer have in memory: each process' own share of its pages (PSS)."""

    def __init__(self, site: RiggedSite) -> None:
        self._pids = [pid for name in ("ingest-json", "writer") for pid in site.family(name)]
        self.peak_mb = 0.0

    def look(self) -> float:
        now_mb = sum(map(pss_mb, self._pids))
        self.peak_mb = max(self.peak_mb, now_mb)
        return now_mb


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
