"""Data of held devices: it waits in the quarantine until an operator accepts the device, then it is replayed by itself.

Held = the device proved who it is, by a group's key or a certificate, but nobody has accepted it yet. What waits is
bounded like all of a device's quarantine. Looking is cheap and may be repeated: an entry is replayed once.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chassis import logs
from chassis.metrics import Counter
from ingest.ports import Ports
from ingest.quarantine import HELD, Selection
from ingest.replay import Replayer
from wire.errors import PeerUnavailable, Unavailable

log = logs.get(__name__)
LOOK_S = 1.0
SETTLING_S = 10.0  # after a change, a process that had not heard of it yet may still add to what waits
IDLE_S = 60.0  # and without any, in case one was missed
MAX_DEVICES = 500  # looked at in one turn

REPLAYED = Counter("headwater_ingest_held_replayed", "Messages of held devices replayed after they were accepted")


class HeldData:
    """Replays what waits of devices that were accepted; `look` is called by one thread."""

    def __init__(self, ports: Ports, replayer: Replayer, lock_path: Path) -> None:
        """`lock_path`: so that one process of all does it at a time."""
        self._ports = ports
        self._replayer = replayer
        self._lock_path = lock_path

    def run(self, stopping: threading.Event) -> None:
        """Look after each change in the registry, until stopped."""
        revision, until_s, idle_until_s = -1, 0.0, 0.0
        while not stopping.wait(LOOK_S):
            now_s = time.monotonic()
            if self._ports.gate.revision != revision:
                revision, until_s = self._ports.gate.revision, now_s + SETTLING_S
            if now_s < until_s or now_s >= idle_until_s:
                idle_until_s = now_s + IDLE_S
                self._look_safely()

    def look(self) -> int:
        """Replay what waits of accepted devices; give how many messages that were.

        Raises:
            Unavailable: the registry, the spool or the quarantine refuses; the next look goes on.
        """
        replayed = 0
        with self._alone() as is_alone:
            waiting = self._ports.quarantine.devices_waiting(HELD, MAX_DEVICES) if is_alone else []
            known = self._ports.gate.find({device for _, device in waiting}).known
            for tenant, device_id in waiting:
                device = known.get(device_id)
                if device is None or device.tenant != tenant or not device.is_active or device.is_held:
                    continue
                selection = Selection(device=device_id, code=HELD, tenant=tenant)
                replayed += self._replayer.replay_selection(selection).replayed
        REPLAYED.inc(replayed)
        return replayed

    def _look_safely(self) -> None:
        try:
            replayed = self.look()
        except (PeerUnavailable, Unavailable) as error:
            log.warning("held_data_waits_on", detail=error.detail)
            return
        if replayed:
            log.info("held_data_replayed", messages=replayed)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
