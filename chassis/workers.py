"""Background threads of a service: named, owned, restarted after a fault, stopped and joined."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from chassis import ending, logs
from chassis.metrics import Counter
from wire.errors import Unavailable

log = logs.get(__name__)
FAULTS = Counter("headwater_worker_faults", "Faults that ended a background thread's turn", ["thread"])
SAY_AGAIN_S = 60.0  # of the same trouble
RESTART_AFTER_S = 1.0  # long enough not to spin on a persistent fault
DIED = b"a background thread died: the process ends, to be started anew\n"


class Workers:
    """Owner of a service's threads. `stop()` sets `stopping`, which every loop must heed, and joins."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        """Run `target` in a thread; when it raises, log and run it again until stopped."""
        thread = threading.Thread(target=self._keep, args=(name, target), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def every(self, name: str, interval_s: float, action: Callable[[], None]) -> threading.Thread:
        """Call `action` each `interval_s` until stopped."""

        def loop() -> None:
            while not self.stopping.wait(interval_s):
                action()

        return self.start(name, loop)

    def are_alive(self) -> bool:
        """Tell whether every thread still runs."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask all threads to end and wait for each up to `timeout_s`."""
        self.stopping.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout_s)

    def _keep(self, name: str, target: Callable[[], None]) -> None:
        try:
            self._repeat(name, target)
        except BaseException:  # not even saying what was wrong succeeded: nobody would do this thread's work again
            ending.end(DIED)

    def _repeat(self, name: str, target: Callable[[], None]) -> None:
        said, said_s = "", 0.0
        while not self.stopping.is_set():
            try:
                target()
            except Unavailable as error:  # a full disk, a service that is away: nothing is wrong with the thread
                ending.end_if_short(error)
                if error.detail != said or time.monotonic() - said_s > SAY_AGAIN_S:
                    said, said_s = error.detail, time.monotonic()
                    log.warning("worker_waits", thread=name, why=said)
            except Exception:
                FAULTS.labels(name).inc()
                log.fault("worker_fault", thread=name)
            else:
                return
            self.stopping.wait(RESTART_AFTER_S)
