"""The writer process: spools to store, store to feed. Wiring only: settings, lock, threads, signals, probes.

One at a time by a lock on DATA/writer.lock; a second one waits for it. What it does is in `ingest.writer.drain`.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import series
from chassis import ending, logs, probes, settings
from chassis.backoff import Backoff
from chassis.metrics import Counter, Gauge
from chassis.peers import HttpPeer
from chassis.workers import Workers
from ingest.media import index as media_index
from ingest.quarantine import Quarantine
from ingest.spool.reader import SpoolReader
from ingest.writer import departures, erasures
from ingest.writer.acks import AckBoard
from ingest.writer.births import ANSWER_S, Births
from ingest.writer.config import WriterConfig
from ingest.writer.departures import Departures
from ingest.writer.drain import Drain, SpoiledError
from ingest.writer.erasures import Erasures, Passage
from ingest.writer.feed import FeedBuffer, FeedPublisher, News
from ingest.writer.pace import Pace
from ingest.writer.retention import Retention
from ingest.writer.state import BOOT_DAYS, BootReader, DeviceBoots, WriterState
from series.port import SeriesWriter
from wire import clock
from wire.errors import Unavailable

log = logs.get(__name__)
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 2.0  # a store that is away for hours is asked twice in three seconds
STANDBY_S = 0.2
LAG_S = 1.0
FINISH_S = 1.5  # a write that takes longer is left behind: it is written again at the next start
RESERVE = 4  # times the quarantine limit of the ingest services: what is acknowledged must find room when they refuse
DAY_NS = 86_400 * clock.NS_PER_S
LAG = Gauge("headwater_writer_lag_seconds", "Age of the oldest reading not yet stored", multiprocess_mode="livemax")
PENDING = Gauge("headwater_writer_pending", "Readings in the spools not yet taken", multiprocess_mode="livemax")
MISSING = Gauge(
    "headwater_writer_missing", "Readings that their devices numbered and that never came", multiprocess_mode="livemax"
)
GAP_DEVICES = Gauge(
    "headwater_writer_gap_devices", "Devices of which numbered readings are missing", multiprocess_mode="livemax"
)
SPOILED = b"a batch could not be sifted: the writer ends, to be started anew from what is on disk\n"
T = TypeVar("T")
UNAVAILABLE = Counter("headwater_writer_store_unavailable", "Writes that the store could not take")


class Writer:
    """All parts of a running writer; they are made once the lock is ours."""

    def __init__(self, config: WriterConfig, stopping: threading.Event) -> None:
        self._config = config
        self._stopping = stopping
        self._lock: int | None = None
        self._store: SeriesWriter | None = None
        self._state: WriterState | None = None
        self._quarantine: Quarantine | None = None
        self._reader: SpoolReader | None = None
        self._drain: Drain | None = None
        self._trouble = "starting"  # "" when all is well
        self._boots: BootReader | None = None
        self._departures: Departures | None = None
        self._erasures: Erasures | None = None
        self.news = News(FeedBuffer(), AckBoard(self._read_boots))
        self.refusal: settings.SettingsError | None = None  # why it cannot run at all

    def run(self) -> None:
        """Drain until stopped; called again after a fault, it goes on where it was."""
        drain = self._drain or self._open()
        backoff, pace = Backoff(RETRY_FIRST_S, RETRY_MOST_S), Pace()
        while drain is not None and not self._stopping.is_set():
            begun_s = time.monotonic()
            try:
                count = drain.step()
            except Unavailable as error:
                ending.end_if_short(error)
                UNAVAILABLE.inc()
                self._say(error.detail)
                self._stopping.wait(backoff.next_s())
                continue
            except SpoiledError:
                log.fault("batch_spoiled")
                ending.end(SPOILED)
            self._say("")
            backoff.reset()
            self._stopping.wait(pace.rest_s(count, begun_s, time.monotonic()))
        if drain is not None:
            with suppress(Unavailable):
                drain.finish()

    def checks(self) -> dict[str, str]:
        """Give the readiness checks."""
        checks = {"writer": self._trouble or "ok"}
        if self._store is not None:
            checks["store"] = self._store.health()
        if self._reader is not None and (slots := self._reader.unreadable()):
            checks["spool"] = f"cannot be read: {', '.join(slots)}"
        return checks

    def watch_lag(self) -> None:
        """Export how far the store is behind."""
        if self._drain is None or self._reader is None or self._state is None:
            return
        oldest = self._drain.oldest_received_ns()
        LAG.set(0.0 if oldest is None else max(0.0, (clock.now_ns() - oldest) / clock.NS_PER_S))
        PENDING.set(self._reader.pending())
        devices, missing = self._state.gaps()
        GAP_DEVICES.set(devices)
        MISSING.set(missing)

    def follow_registry(self) -> None:
        """Forget devices that are no more."""
        if self._departures is None and self._drain is not None and self._state is not None:
            peer = HttpPeer(self._config.devices_url, self._config.service_token)
            self._departures = Departures(peer, self._state, self._forget, self._has_forgotten)
        if self._departures is not None:
            self._departures.poll()

    def erase_devices(self) -> None:
        """Remove the data of devices that are deleted with it."""
        if self._erasures is None and self._drain and self._store and self._quarantine:
            peer = HttpPeer(self._config.devices_url, self._config.service_token)
            store = self._store if self._store.capabilities.delete_series else None
            passage = Passage(self._drain.oldest_received_ns, self._forget)
            media = partial(media_index.erase_of, self._config.data / "media")
            self._erasures = Erasures(peer, self._quarantine, store, passage, erase_media=media)
        if self._erasures is not None:
            self._erasures.poll()

    def _forget(self, gone: Mapping[str, int]) -> None:
        if self._drain is not None:
            self._drain.forget_devices(gone)

    def _has_forgotten(self) -> bool:
        return self._drain is not None and self._drain.has_forgotten_all and self.news.acks.has_cleared_all

    def keep_house(self) -> None:
        """Each hour, remove what is older than its retention."""
        while not self._stopping.is_set():
            if self._drain is None or self._store is None or self._state is None:
                self._stopping.wait(STANDBY_S)
                continue
            self._state.forget_boots(clock.now_ns() - BOOT_DAYS * DAY_NS)
            peer = HttpPeer(self._config.devices_url, self._config.service_token) if self._config.devices_url else None
            self._stopping.wait(Retention(peer, self._store, self._stopping).apply())

    def close(self) -> None:
        """Release everything; only when no thread of it runs any more."""
        for part in (self._store, self._boots, self._state, self._quarantine):
            if part is not None:
                part.close()
        if self._lock is not None:
            os.close(self._lock)

    def _open(self) -> Drain | None:
        """Wait for the lock and the store; None when stopped meanwhile."""
        data = self._config.data
        data.mkdir(parents=True, exist_ok=True)
        self._wait_for_lock(data / "writer.lock")
        self._store = self._store or self._wait_for(self._open_store)
        self._state = self._state or self._wait_for(lambda: WriterState(data))
        self._quarantine = self._quarantine or self._wait_for(self._open_quarantine)
        if self._store is None or self._state is None or self._quarantine is None:
            return None
        self._reader = SpoolReader(data / "spool", self._state.positions())
        self._boots = self._boots or BootReader(data)
        parts = self._reader, self._state, self._store, self._quarantine, self.news
        self._drain = Drain(*parts, births.of) if (births := self._births()) else Drain(*parts)
        log.info("draining", store=self._config.store)
        return self._drain

    def _births(self) -> Births | None:
        if not self._config.devices_url or self._state is None:
            return None
        peer = HttpPeer(self._config.devices_url, self._config.service_token, timeout_s=ANSWER_S)
        return Births(peer, self._state.registry_revision())

    def _wait_for_lock(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if self._lock is None else -1
        while self._lock is None and not self._stopping.is_set():
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = descriptor
            except BlockingIOError:
                self._say("standby: another writer holds the lock")
                self._stopping.wait(STANDBY_S)
        if self._lock is None and descriptor >= 0:
            os.close(descriptor)

    def _wait_for(self, opened: Callable[[], T]) -> T | None:
        """Try until it opens; None when stopped meanwhile."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MOST_S)
        while not self._stopping.is_set():
            try:
                return opened()
            except settings.SettingsError as error:
                self.refusal = error
                self._stopping.set()
            except Unavailable as error:
                self._say(error.detail)
                self._stopping.wait(backoff.next_s())
        return None

    def _open_store(self) -> SeriesWriter:
        config = self._config
        return series.open_writer(config.store, config.data, retention_days=config.retention_days)

    def _read_boots(self, device: str, tenant: str) -> DeviceBoots:
        return self._boots.read(device, tenant) if self._boots else DeviceBoots([])

    def _open_quarantine(self) -> Quarantine:
        limit_bytes, limit_entries = self._config.quarantine_limit_bytes, self._config.quarantine_limit_entries
        path = self._config.data / "quarantine.db"
        return Quarantine(path, limit_bytes=limit_bytes * RESERVE, limit_entries=limit_entries * RESERVE)

    def _say(self, trouble: str) -> None:
        """Log a change of state, not each retry."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.warning("writer_waits", why=trouble)
        else:
            log.info("writer_works")


def run(config: WriterConfig) -> int:
    """Run in the foreground until SIGTERM or SIGINT; gives the exit code."""
    ending.watch()
    logs.configure("writer", style=config.log_style, level=config.log_level)
    workers = Workers()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: workers.stopping.set())
    # Readings live for one batch and form no cycles: fewer collections make draining a fifth faster (bench/writer.py).
    gc.set_threshold(50_000, 20, 100)
    writer = Writer(config, workers.stopping)
    server = probes.serve(config.host, config.port, writer.checks)
    threads = start(writer, workers, config)
    log.info("started", probes=server.server_address[1])
    workers.stopping.wait()
    workers.stop(FINISH_S)
    server.shutdown()
    server.server_close()
    if not any(thread.is_alive() for thread in threads):
        writer.close()
    if writer.refusal is not None:
        print(f"headwater writer: {writer.refusal}", file=sys.stderr)  # noqa: T201 - one line for the person who set it
    return 2 if writer.refusal else 0


def start(writer: Writer, workers: Workers, config: WriterConfig) -> list[threading.Thread]:
    """Start the threads of a writer."""
    threads = [
        workers.start("drain", writer.run),
        workers.start("retention", writer.keep_house),
        workers.every("lag", LAG_S, writer.watch_lag),
    ]
    if config.devices_url:
        threads.append(workers.every("registry", departures.POLL_S, writer.follow_registry))
        threads.append(workers.every("erasures", erasures.POLL_S, writer.erase_devices))
    if config.broker:
        publisher = FeedPublisher(writer.news, config.broker, config.broker_username, config.broker_password)
        threads.append(workers.start("feed", lambda: publisher.run(workers.stopping)))
    return threads


def main() -> int:
    """Run with the settings of the environment."""
    try:
        config = settings.load(WriterConfig)
    except settings.SettingsError as error:
        print(f"headwater writer: {error}", file=sys.stderr)  # noqa: T201 - before logs are configured
        return 2
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
