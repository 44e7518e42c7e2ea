"""Debian's mosquitto as a process of a test, on a free port: killed, frozen and started again at will."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from compose import ports
from tests.support.tied import tied
from tests.support.waiting import wait_until

PROGRAM = "/usr/sbin/mosquitto"


class Mosquitto:
    """Runs with the given lines of configuration below the folder; anybody may connect unless they say otherwise."""

    def __init__(self, folder: Path, *lines: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.port = folder, ports.pick()
        self.pid_file = folder / "pid"
        self._process: subprocess.Popen[bytes] | None = None
        own = [f"listener {self.port} 127.0.0.1", *(lines or ("allow_anonymous true",))]
        if os.geteuid() == 0:
            own.append("user root")  # else it gives up root's rights, and the folder is root's
        self._config = folder / "mosquitto.conf"
        self._config.write_text("".join(f"{line}\n" for line in own))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> Self:
        self._process = subprocess.Popen(
            tied(PROGRAM, "-c", str(self._config)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.pid_file.write_text(str(self._process.pid))
        try:
            wait_until(self._listens, 30, "mosquitto listens")  # a crowded machine takes its time
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(10)
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listens(self) -> bool:
        assert self.process.poll() is None, "mosquitto ended at once"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
