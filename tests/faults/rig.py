"""An installation to be broken: its processes by name, kills and freezes, and the checker's load over it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import pytest

from tests.e2e.platform import Installation
from tests.faults.checker import api, verdict
from tests.faults.checker.history import History
from tests.faults.checker.senders import Load, now_ms
from tests.faults.proxy import Proxy
from tests.support.waiting import wait_until

SERVICES = ("devices", "ingest-json", "dashboard")  # gunicorn: a master and its workers
VICTIMS = ("bridge", "ingest-json", "ingest-json worker", "writer", "devices", "dashboard", "gateway", "gateway worker")
READY_S = 30.0
Clock = Callable[[], int]
INJECT = Path(__file__).parent / "inject"


class Site:
    """An installation with what the faults need of it."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.data = installation.data
        self.mqtt = ("127.0.0.1", installation.mqtt)
        self.device_door = self.mqtt  # where the checker's devices find the broker
        self._runs: list[Run] = []

    @cached_property
    def door(self) -> api.Door:
        return api.operator(self.installation.url, self.data / "secrets/operator.token")

    def stop(self) -> None:
        self.door.close()
        assert self.installation.stop() == 0

    def pid(self, name: str) -> int:
        """Process id of `bridge`, `ingest-json`, ... or, with ` worker`, of one of its children."""
        master, _, part = name.partition(" ")

        def find() -> list[int]:
            pid = int(_read(self.data / f"run/{master}.pid") or 0)
            return children(pid) if part else [pid] if pid else []

        return wait_until(find, READY_S, f"{name} runs")[0]

    def is_ready(self, name: str) -> bool:
        """Tell whether a process says that it is ready, on its own port."""
        address = ("127.0.0.1", self.inner_port(name))
        connection = http.client.HTTPConnection(*address, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except api.BROKEN:
            return False
        finally:
            connection.close()

    def family(self, name: str) -> list[int]:
        pid = self.pid(name)
        return [pid, *children(pid)]

    def inner_port(self, name: str) -> int:
        return int(json.loads((self.data / "run/ports.json").read_text())[name])

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to the process of that name; give the pid it had."""
        while True:
            pid = self.pid(name)
            try:
                os.kill(pid, number)
            except ProcessLookupError:  # it died just now of something else
                continue
            return pid

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Stop processes with all their workers: they are there and do not answer."""
        pids = [pid for name in names for pid in self.family(name)]
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

    def wait_ready(self, within_s: float = READY_S) -> None:
        """Wait until the doors and all that is behind them are ready again."""
        wait_until(lambda: _is_ready(self.data), within_s, "all processes run")
        wait_until(lambda: self.installation.call("GET", "/readyz").status == 200, within_s, "ready")

    def wait_replaced(self, killed: Sequence[int]) -> None:
        """Wait until processes that were killed are gone, others run in their places, and all say that they are ready."""
        wait_until(
            lambda: not any(map(_is_alive, killed)) and _is_ready(self.data, killed), 2 * READY_S, "all run again"
        )

    def restarts(self) -> dict[str, int]:
        """How often each process was started again."""
        shown = json.loads(_read(self.data / "run/state.json"))
        return {process["name"]: process["restarts"] for process in shown["processes"]}

    def run(self, name: str) -> Run:
        """Begin a run of the checker; devices of different runs have different names."""
        self._runs.append(Run(self, f"{name}-{len(self._runs) + 1}"))
        return self._runs[-1]

    def end_runs(self) -> None:
        """End the loads of runs that were never finished."""
        for run in self._runs:
            run.load.abandon()


class RiggedSite(Site):
    """An installation with proxies on the wires and with what can be done inside a process from outside (inject/)."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        installation = Installation(folder / "data")
        self.from_devices = Proxy(lambda: ("127.0.0.1", installation.mqtt))
        self.to_broker = Proxy(lambda: ("127.0.0.1", installation.mqtt))  # the bridge's way
        self.to_ingest = Proxy(lambda: ("127.0.0.1", self.inner_port("ingest-json")))
        self._environ = self._injections() | environ
        super().__init__(installation)
        self.device_door = self.from_devices.address

    def start(self) -> RiggedSite:
        self.installation.start(**self._environ)
        return self

    def stop(self) -> None:
        super().stop()
        for proxy in (self.from_devices, self.to_broker, self.to_ingest):
            proxy.close()

    def heal(self) -> None:
        """Take all faults away."""
        for proxy in (self.from_devices, self.to_broker, self.to_ingest):
            proxy.heal()
        self.set_store("")
        self.set_clock(0)
        for call in ("sync", "write"):
            (self.folder / call).unlink(missing_ok=True)

    def set_store(self, fault: str) -> None:
        fresh = self.folder / "store.new"
        fresh.write_text(fault)
        fresh.rename(self.folder / "store")

    def set_clock(self, offset_s: float) -> None:
        """Set the wall clock of all processes of the platform ahead of the machine's."""
        with (self.folder / "clock").open("r+b") as file:
            file.write(struct.pack("<q", int(offset_s * 1e9)))

    def fail(self, call: str, code: int, below: str = "") -> None:
        """Make `write` or `sync` fail with this errno below a path of the data folder, until `heal`."""
        fresh = self.folder / f"{call}.new"
        fresh.write_text(f"{code} {below}")
        fresh.rename(self.folder / call)

    def _injections(self) -> dict[str, str]:
        (self.folder / "clock").write_bytes(bytes(8))
        self.set_store("")
        return {
            "PYTHONPATH": str(INJECT),
            "LD_PRELOAD": str(preload(self.folder)),
            "FAULT_FOLDER": str(self.folder / "data"),
            "FAULT_CLOCK": str(self.folder / "clock"),
            "FAULT_SYNC": str(self.folder / "sync"),
            "FAULT_WRITE": str(self.folder / "write"),
            "FAULT_STORE": str(self.folder / "store"),
            "FAULT_BROKER": f"127.0.0.1:{self.to_broker.port}",
            "FAULT_INGEST_URL": f"http://127.0.0.1:{self.to_ingest.port}",
        }


def preload(folder: Path) -> Path:
    """Build the library of inject/faults.c; skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("faults of disk and clock need a C compiler (./test installs one)")
    library = folder / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(INJECT / "faults.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Run:
    """A load under which things are broken, and the verdict on it."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.history = History(site.data.parent / "histories" / name)
        self.load = Load(self.history, site.door, site.device_door)
        self.recoveries: list[float] = []

    def repairing(self) -> Run:
        """Have the devices heed the acks topic at the end, so that a killed broker costs nothing."""
        self.load.repairs = True
        return self

    def start(self, *, mqtt: int = 4, http: int = 2, per_tick: int = 1, clock_ms: Clock = now_ms) -> Run:
        """Send steadily; under way when this returns."""
        self.connect(mqtt, http, clock_ms)
        self.load.start(per_tick)
        self.wait_acked(20 * (mqtt + http))
        return self

    def connect(self, mqtt: int = 0, http: int = 0, clock_ms: Clock = now_ms, device_type: str | None = None) -> Run:
        """Make devices, and wait until all of them are connected (again)."""
        self.load.add(self.name, mqtt=mqtt, http=http, clock_ms=clock_ms, device_type=device_type)
        wait_until(lambda: self.load.is_connected, READY_S, "the devices are connected")
        return self

    def send(self, count: int) -> None:
        """Send so many over each MQTT device and wait until they are acknowledged."""
        self.load.publish(count)
        wait_until(lambda: not self.load.waiting(), READY_S, "all are acknowledged")

    def wait_acked(self, count: int, within_s: float = READY_S) -> None:
        """Wait for so many more acknowledgements."""
        goal = self.history.count_acked + count
        wait_until(lambda: self.history.count_acked >= goal, within_s, f"{count} more are acknowledged")

    def finish(self, within_s: float = 90.0) -> verdict.Verdict:
        """End the load, wait until all is acknowledged and quiet, and judge."""
        self.load.finish(within_s)
        self.history.close()
        found = verdict.judge(self.site.door, self.history.folder, within_s)
        print(f"{self.name}: {found.sent} sent, {found.acked} acknowledged, {found.stored} stored, lost {found.lost}")
        return found

    def check(self, within_s: float = 90.0) -> verdict.Verdict:
        """Finish, and insist: nothing acknowledged is lost, nothing is twice, wrong or of nobody."""
        found = self.finish(within_s)
        assert found.is_clean, found
        assert found.acked == found.sent > 0
        return found


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_ready(data: Path, killed: Sequence[int] = ()) -> bool:
    """Tell whether all processes are ready, none of them one of those that were killed (and not missed yet)."""
    processes = json.loads(_read(data / "run/state.json") or "{}").get("processes", ())
    return bool(processes) and all(
        process["state"] in ("running", "idle") and process["pid"] not in killed for process in processes
    )


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
