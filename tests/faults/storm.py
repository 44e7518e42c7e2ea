"""Random kills and freezes from a seed, and what they cost: one strike after another, each recovered from."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from tests.faults.checker.probe import Probe, percentile
from tests.faults.checker.verdict import Verdict
from tests.faults.rig import VICTIMS, Run

KILL_SHARE = 0.75  # of the faults; the others are freezes
WORST = 5


@dataclass
class Storm:
    """Strikes hit up to `together` processes at the same moment; the seed decides on all but the machine's timing.

    A strike is over when every process runs again and a reading that was published after that is found as quickly as
    before, over both doors: a master's orphaned workers may answer for a while, which is no recovery.
    """

    seed: int
    victims: tuple[str, ...] = VICTIMS
    together: int = 1
    kills: int = 0
    freezes: int = 0
    recoveries: list[tuple[float, str]] = field(default_factory=list)  # seconds, what was done

    def blow(self, run: Run, probe: Probe, *, until_s: float, most: int, longest_freeze_s: float = 2.0) -> Storm:
        """Kill and freeze until the time (monotonic) or the number of faults is reached; each is recovered from."""
        random = Random(self.seed)
        while self.kills + self.freezes < most and time.monotonic() < until_s:
            baseline_s = probe.baseline_s()
            done, killed = self._strike(run, random, longest_freeze_s)
            struck_s = time.monotonic()
            run.site.wait_replaced(killed)
            probe.wait_recovered(time.monotonic(), baseline_s)
            took_s = time.monotonic() - struck_s
            self.recoveries.append((round(took_s, 3), done))
            run.history.note(f"recovered in {took_s:.2f} s")
        return self

    def _strike(self, run: Run, random: Random, longest_freeze_s: float) -> tuple[str, list[int]]:
        """Do it; say what, and give the processes that are no more."""
        time.sleep(random.uniform(0.0, 0.2))  # the moment is part of the fault
        victims = random.sample(self.victims, random.randint(1, self.together))
        if random.random() < KILL_SHARE:
            self.kills += len(victims)
            killed = [run.site.kill(victim) for victim in victims]
            done = f"kill {', '.join(victims)}"
            run.history.note(f"{done} {killed}")
            return done, killed
        self.freezes += len(victims)
        length_s = random.uniform(0.2, longest_freeze_s)
        done = f"freeze {', '.join(victims)} {length_s:.2f} s"
        run.history.note(done)
        with run.site.frozen(*victims):
            time.sleep(length_s)
        return done, []

    def figures(self, found: Verdict) -> dict[str, Any]:
        """Give what is published, as JSON has it."""
        return {
            "seeds": [self.seed],
            "kills": self.kills,
            "freezes": self.freezes,
            "verdict": asdict(found),
            "recoveries": self.recoveries,
        }


def total(runs: Iterable[dict[str, Any]]) -> str:
    """Say in lines what the figures of some runs come to."""
    runs = list(runs)
    recoveries = sorted((pair for run in runs for pair in run["recoveries"]), reverse=True)
    times_s = [took_s for took_s, _ in recoveries]
    sums = {
        name: sum(run["verdict"][name] for run in runs) for name in ("acked", "lost", "duplicates", "wrong", "foreign")
    }
    lines = [
        f"seeds {' '.join(str(seed) for run in runs for seed in run['seeds'])}",
        f"kills {sum(run['kills'] for run in runs)}, freezes {sum(run['freezes'] for run in runs)}",
        ", ".join(f"{name} {count}" for name, count in sums.items()),
        f"recovery p50 {percentile(times_s, 50):.2f} s, p99 {percentile(times_s, 99):.2f} s, of {len(times_s)} strikes",
        *(f"  {took_s:.2f} s after {done}" for took_s, done in recoveries[:WORST]),
    ]
    return "\n".join(lines)
