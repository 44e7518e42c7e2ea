"""An installation to be broken: its processes by name, kills and freezes, and the checker's load over it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.e2e.platform import Installation
from tests.faults.checker import api, verdict
from tests.faults.checker.history import History
from tests.faults.checker.probe import Probe, percentile
from tests.faults.checker.senders import Load
from tests.support.waiting import wait_until

SERVICES = ("devices", "ingest-json", "dashboard")  # gunicorn: a master and its workers
VICTIMS = ("bridge", "ingest-json", "ingest-json worker", "writer", "devices", "dashboard", "gateway", "gateway worker")
READY_S = 30.0


class Site:
    """An installation with what the faults need of it."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.data = installation.data
        self.mqtt = ("127.0.0.1", installation.mqtt)
        self.door = api.operator(installation.url, self.data / "secrets/operator.token")
        self._runs = 0

    def stop(self) -> None:
        self.door.close()
        assert self.installation.stop() == 0

    def pid(self, name: str) -> int:
        """Process id of `bridge`, `ingest-json`, ... or, with ` worker`, of one of its children."""
        master, _, part = name.partition(" ")
        pid = int(wait_until(lambda: _read(self.data / f"run/{master}.pid"), READY_S, f"{master} runs"))
        return wait_until(lambda: children(pid), READY_S, f"{master} has workers")[0] if part else pid

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

    def run(self, name: str) -> Run:
        """Begin a run of the checker; devices of different runs have different names."""
        self._runs += 1
        return Run(self, f"{name}-{self._runs}")


class Run:
    """A load under which things are broken, and the verdict on it."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.history = History(site.data.parent / "histories" / name)
        self.load = Load(self.history, site.door, site.mqtt)
        self.recoveries: list[float] = []

    def start(self, *, mqtt: int = 4, http: int = 2, per_tick: int = 1, **more: object) -> Run:
        self.load.add(self.name, mqtt=mqtt, http=http, **more).start(per_tick)  # type: ignore[arg-type]
        wait_until(lambda: self.load.is_connected, READY_S, "the devices are connected")
        self.wait_acked(20 * (mqtt + http))
        return self

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


@dataclass
class Storm:
    """Random faults from a seed, and what they cost."""

    seed: int
    kills: int = 0
    freezes: int = 0
    recoveries: list[float] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "none")

    def blow(self, run: Run, probe: Probe, *, until_s: float, most: int, longest_freeze_s: float = 2.0) -> Storm:
        """Kill and freeze until the time (monotonic) or the number of faults is reached; each is recovered from."""
        random = Random(self.seed)
        baseline_s = probe.baseline_s()
        while self.kills + self.freezes < most and time.monotonic() < until_s:
            victim = random.choice(VICTIMS)
            self._strike(victim, run, random, longest_freeze_s)
            took_s = probe.wait_recovered(time.monotonic(), baseline_s)
            self.recoveries.append(took_s)
            self.slowest = max(self.slowest, (took_s, victim))
        return self

    def _strike(self, victim: str, run: Run, random: Random, longest_freeze_s: float) -> None:
        time.sleep(random.uniform(0.0, 0.2))  # the moment is part of the fault
        if random.random() < 0.75:
            self.kills += 1
            run.history.note(f"kill {victim} {run.site.kill(victim)}")
        else:
            self.freezes += 1
            length_s = random.uniform(0.2, longest_freeze_s)
            run.history.note(f"freeze {victim} {length_s:.2f} s")
            with run.site.frozen(victim):
                time.sleep(length_s)

    def figures(self, found: verdict.Verdict) -> str:
        p50, p99 = percentile(self.recoveries, 50), percentile(self.recoveries, 99)
        return (
            f"seed {self.seed}, kills {self.kills}, freezes {self.freezes}, acknowledged {found.acked}, "
            f"lost {found.lost}, duplicates {found.duplicates}, recovery p50 {p50:.2f} s p99 {p99:.2f} s "
            f"(slowest {self.slowest[0]:.2f} s: {self.slowest[1]})"
        )


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_ready(data: Path) -> bool:
    state = json.loads(_read(data / "run/state.json") or "{}")
    return all(process["state"] == "running" for process in state["processes"]) if state else False


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
