"""Where the scripts keep their figures: `bench/results/NAME.json`, with the conditions they were measured under.

The table of docs/benchmarks.md is made from the lines in these files (`python -m bench --table`), and a test holds that
it agrees with them.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "results"
ELSEWHERE = "BENCH_RESULTS"  # names another folder: short runs are not to be published
PAGE = FOLDER.parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- from bench/results -->\n", "<!-- end -->\n"


class Line(NamedTuple):
    """One published figure; `budget` and `aim` are lower bounds, unless `is_most`."""

    what: str
    seen: float
    unit: str
    budget: float | None = None
    aim: float | None = None
    is_most: bool = False

    def reaches(self, bound: float | None) -> bool:
        """Tell whether the figure is on the right side of a bound."""
        return bound is None or (self.seen <= bound if self.is_most else self.seen >= bound)


def conditions() -> dict[str, Any]:
    """Say when and where; the load average tells how much else the machine did."""
    model = next((line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")), "")
    return {
        "date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "cpu": model, "python": platform.python_version(),
        "system": platform.platform(), "load_before": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def save(name: str, before: dict[str, Any], figures: dict[str, Any], lines: Sequence[Line] = ()) -> None:
    """Write the figures of one script, with the conditions as they were before it ran."""
    folder = Path(os.environ.get(ELSEWHERE, FOLDER))
    folder.mkdir(exist_ok=True)
    kept = {"conditions": before | {"load_after": round(os.getloadavg()[0], 1)}, "figures": figures}
    kept |= {"lines": [line._asdict() for line in lines]}
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")


def table(folder: Path = FOLDER) -> str:
    """Render all lines of all files."""
    rows = ["| what | seen | at least | aim | reached | measured |", "|---|---|---|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        kept = json.loads(path.read_text())
        told = kept["conditions"]
        measured = f"{path.stem}, {told['date']}, load {told['load_before']:g} to {told['load_after']:g}"
        rows += [_row(Line(**line), measured) for line in kept.get("lines", ())]
    return "\n".join(rows) + "\n"


def write_page(page: Path = PAGE) -> None:
    """Put the table into the page, between its two marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}")


def _row(line: Line, measured: str) -> str:
    bounds = ["" if bound is None else f"{'≤ ' * line.is_most}{bound:,g}" for bound in (line.budget, line.aim)]
    is_judged = line.budget is not None or line.aim is not None
    reached = ("aim" if line.reaches(line.aim) else "yes" if line.budget is not None else "no") if is_judged else ""
    reached = reached if line.reaches(line.budget) else "**no**"
    return f"| {line.what} | {line.seen:,g} {line.unit} | {bounds[0]} | {bounds[1]} | {reached} | {measured} |"


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
