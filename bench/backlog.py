"""A store that was away: how much memory the writer needs meanwhile, and how fast it drains while more comes.

.venv/bin/python bench/backlog.py [--readings 2000000] [--devices 1000] [--folder DIR]

The spool is filled by a process of its own, with the readings that a fleet of 5,000/s makes; then a store refuses for
some turns, comes back, and the writer drains while another process goes on at 5,000/s, a commit for each 100. What is
drained a second counts both. Memory is the peak of the writing process.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import results

import series
from ingest.quarantine import Quarantine
from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.reader import SpoolReader
from ingest.writer.acks import AckBoard
from ingest.writer.drain import Drain
from ingest.writer.feed import FeedBuffer, News
from ingest.writer.state import BootReader, WriterState
from wire import clock
from wire.errors import StoreUnavailable

RATE = 5_000
NAMES = ("temperature", "humidity", "pressure", "voltage", "flow")
AWAY_TURNS = 50
PIECE = 100  # readings of a commit while it drains: 20 ms of the fleet


class Away:
    """A store that takes nothing at first."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.is_away = True

    def write(self, points: Any, **named: Any) -> Any:
        if self.is_away:
            raise StoreUnavailable("away")
        return self._inner.write(points, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def fill(folder: Path, readings: int, devices: int) -> None:
    log = segments.open_spool(folder, limit_bytes=1 << 40, floor_bytes=0)
    begin_ns = clock.now_ns() - readings * clock.NS_PER_S // RATE
    for start in range(0, readings, 500):
        log.commit(list(frames.encode([make(n, devices, begin_ns) for n in range(start, start + 500)])))
    log.close()


class Flow:
    """The fleet goes on at RATE behind what was filled in, from a process of its own."""

    def __init__(self, folder: Path, readings: int, devices: int) -> None:
        context = multiprocessing.get_context("fork")
        self._begin, self._stop, self._came = context.Event(), context.Event(), context.Value("q", 0)
        self._process = context.Process(target=self._run, args=(folder, readings, devices))
        self._process.start()

    def begin(self) -> None:
        self._begin.set()

    def end(self) -> int:
        """Give how many readings came."""
        self._stop.set()
        self._process.join()
        return int(self._came.value)

    def _run(self, folder: Path, readings: int, devices: int) -> None:
        self._begin.wait()
        log = segments.open_spool(folder, limit_bytes=1 << 40, floor_bytes=0)
        begin_ns = clock.now_ns() - readings * clock.NS_PER_S // RATE
        start, due_s = readings, time.monotonic()
        while not self._stop.is_set():
            log.commit(list(frames.encode([make(n, devices, begin_ns) for n in range(start, start + PIECE)])))
            start, due_s = start + PIECE, due_s + PIECE / RATE
            self._came.value += PIECE
            time.sleep(max(0.0, due_s - time.monotonic()))
        log.close()


def make(number: int, devices: int, begin_ns: int) -> Reading:
    time_ns = begin_ns + number * clock.NS_PER_S // RATE
    fields = {name: (number * 7 + index) % 1000 / 37 for index, name in enumerate(NAMES)}
    return Reading(
        f"device-{number % devices:05d}", "telemetry", time_ns, time_ns, fields, boot_id="b1", seq=number // devices
    )


def memory_mb(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def measure(data: Path, options: argparse.Namespace, flow: Flow) -> dict[str, float]:
    state, store = WriterState(data), Away(series.open_writer("embedded:", data))
    quarantine, boots = Quarantine(data / "quarantine.db", limit_bytes=1 << 30), BootReader(data)
    news = News(FeedBuffer(), AckBoard(boots.read))
    reader = SpoolReader(data / "spool", state.positions())
    drain = Drain(reader, state, store, quarantine, news)
    for _ in range(AWAY_TURNS):
        with suppress(StoreUnavailable):
            drain.step()
    held_mb, store.is_away = memory_mb("VmRSS"), False
    flow.begin()
    begun_s, cpu_s, count = time.perf_counter(), time.process_time(), 0
    while count < options.readings:
        count += drain.step()
        news.feed.take(time.monotonic())
    took_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    came, behind = flow.end(), 0
    while moved := drain.step():
        behind += moved
    for part in (store, state, quarantine, boots):
        part.close()
    assert count + behind == options.readings + came, (count, behind, options.readings, came)
    return {
        "readings": count,
        "seconds": round(took_s, 1),
        "came_meanwhile_s": round(came / took_s),
        "readings_s": round(count / took_s),
        "drain_ratio": round(count / came, 1),
        "cpu_us_each": round(1e6 * cpu_s / count, 1),
        "rss_while_away_mb": round(held_mb),
        "rss_peak_mb": round(memory_mb("VmHWM")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=2_000_000)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    options = parser.parse_args()
    before = results.conditions()
    gc.set_threshold(50_000, 20, 100)  # as the writer has it
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        data = Path(name)
        arguments = (data / "spool" / "json", options.readings, options.devices)
        process = multiprocessing.get_context("fork").Process(target=fill, args=arguments)
        process.start()
        process.join()
        spool_mb = sum(path.stat().st_size for path in data.rglob("*.seg")) / 1e6
        figures = {"spool_mb": round(spool_mb)} | measure(data, options, Flow(*arguments))
    figures["mb_s"] = round(spool_mb / options.readings * figures["readings_s"], 1)
    print(before)
    print(figures)
    drained = "backlog: drained while 5,000/s go on coming, in times of what comes"
    lines = [
        results.Line(drained, figures["drain_ratio"], "x", aim=3),
        results.Line("backlog: replay of 1 GB of spool", round(1000 / figures["mb_s"]), "s", aim=30, is_most=True),
        results.Line("backlog: the writer's memory at most", figures["rss_peak_mb"], "MB", aim=300, is_most=True),
    ]
    results.save("backlog", before, figures, lines)


if __name__ == "__main__":
    main()
