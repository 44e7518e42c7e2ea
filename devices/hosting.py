"""The background threads of the registry, of which one process runs: presence, broker list, jobs, schedules."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial

from chassis.workers import Workers
from devices.broker.access import BrokerAccess
from devices.config import DevicesConfig
from devices.presence.feed import LOOK_S, BrokerFeed
from devices.presence.keeper import Keeper

Chore = Callable[[threading.Event], None]
RETRY_S = 1.0  # how soon another process takes over from a host that died
_HOST, _GUEST = "host", "guest"


class Hosted:
    """Owner of those threads in this process; they wait until it becomes the host."""

    def __init__(
        self, config: DevicesConfig, keeper: Keeper, access: BrokerAccess, chores: Mapping[str, Chore]
    ) -> None:
        """Prepare; `chores` are further threads by name, which end when the event is set."""
        self._config = config
        self._keeper = keeper
        self._access = access
        self._chores = chores
        self._state = "deciding which process hosts it"

    def start(self, workers: Workers) -> None:
        """Start the threads; stopping the workers ends them."""
        workers.start("devices-host", lambda: self._host(workers))

    def checks(self) -> dict[str, str]:
        """Tell whether the broker's list follows the registry, as far as this process knows."""
        if self._state == _HOST:
            return {"broker_access": "ok" if self._access.is_current else "the broker's list is not written yet"}
        return {"broker_access": "ok" if self._state == _GUEST else self._state}

    def _host(self, workers: Workers) -> None:
        descriptor = os.open(self._config.data / "devices.host.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if self._wait_for_turn(descriptor, workers.stopping):
                self._state = _HOST
                workers.start("broker-access", lambda: self._access.run(workers.stopping))
                workers.start("presence", lambda: self._keep_presence(workers.stopping))
                for name, chore in self._chores.items():
                    workers.start(name, partial(chore, workers.stopping))
                workers.stopping.wait()
        finally:
            os.close(descriptor)

    def _wait_for_turn(self, descriptor: int, stopping: threading.Event) -> bool:
        while not stopping.is_set():
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._state = _GUEST
                stopping.wait(RETRY_S)
            else:
                return True
        return False

    def _keep_presence(self, stopping: threading.Event) -> None:
        config = self._config
        if config.broker:
            credential = (config.broker_username, config.broker_password)
            BrokerFeed(config.broker, credential, self._keeper, self._access.on_refusal).run(stopping)
        else:
            self._keeper.resume(has_session=True)
        while not stopping.wait(LOOK_S):
            self._keeper.look(hears=not config.broker)
