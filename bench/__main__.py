"""All published figures, one after another: each run writes its file below bench/results, then the table is made.

    .venv/bin/python -m bench [NAME ...] [--short] [--list] [--table] [--through COMMAND]

`--short` runs each for a few seconds, to see that it does, and keeps nothing. `--through` runs each through a command,
one that waits for a quiet machine, say. A run takes one to six minutes; `rows`, which stores 10 M and 50 M rows first,
takes longer and is only run when it is named.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE)]

import results  # noqa: E402

RUNS = {
    "mqtt": "pipeline.py mqtt --seconds 8 --rates 10000 20000 25000 30000",
    "visible": "pipeline.py visible --seconds 20",
    "single": "pipeline.py single --seconds 8",
    "batch": "pipeline.py batch --seconds 8",
    "broker": "broker.py",
    "decode": "decode.py",
    "paths": "paths.py",
    "isolation": "isolation.py",
    "stages": "stages.py --batch 50 500 --turn 100 700 5000",
    "durability": "durability.py",
    "growth": "growth.py --rows 1000000",
    "backlog": "backlog.py --readings 1000000",
    "queries": "store_query.py",
    "start": "footprint.py --starts 3",
    "service": "footprint.py --service --starts 5",
    "wide": "simulator.py wide",
    "overload": "overload.py open",
    "noisy": "overload.py noisy",
    "timing": "timing.py",
    "registry": "registry.py sqlite",
    "registry_postgresql": "registry.py postgresql",
    "commands": "commands.py",
    "polls": "polls.py",
    "enrolment": "enrolment.py",
    "dry_run": "dry_run.py",
    "cutoff": "cutoff.py --rounds 20",
    "rows": "growth.py --only-rows --rows 10000000 50000000",
}
LONG = ("rows",)
SHORT = {  # arguments that come behind the others, and so go before them
    "mqtt": "--seconds 2 --rates 5000",
    "visible": "--seconds 3",
    "single": "--seconds 1",
    "batch": "--seconds 1",
    "broker": "--seconds 1 --rate 5000",
    "decode": "--seconds 0.1",
    "paths": "--messages 200",
    "isolation": "--seconds 2",
    "stages": "--messages 10000",
    "durability": "--seconds 1 --rounds 1",
    "growth": "--messages 5000 --rows 20000",
    "backlog": "--readings 100000",
    "queries": "--hours 0.5",
    "start": "--starts 1",
    "service": "--starts 1",
    "overload": "--seconds 2",
    "noisy": "--seconds 2",
    "timing": "--rounds 500 --logins 30",
    "registry": "--devices 2000 --rate 100 --seconds 3",
    "registry_postgresql": "--devices 2000 --rate 100 --seconds 3",
    "commands": "--devices 300",
    "polls": "--devices 20 100",
    "enrolment": "--devices 2000 --rate 500 --seconds 3",
    "cutoff": "--rounds 2",
    "rows": "--rows 50000",
}


def main() -> int:
    """Run what is named, or all but the long ones; give how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *RUNS], metavar="NAME")
    parser.add_argument("--short", action="store_true", help="a few seconds each; the figures are not kept")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--table", action="store_true", help="only make the table from the files that are there")
    parser.add_argument("--through", default="", metavar="COMMAND")
    given = parser.parse_args()
    if given.list:
        print("\n".join(f"{name:12} {command}" for name, command in RUNS.items()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if given.short:
            os.environ[results.ELSEWHERE] = folder
        failed = [] if given.table else [name for name in given.names or RUNS if not _run(name, given)]
    if not given.short:
        results.write_page()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def _run(name: str, given: argparse.Namespace) -> bool:
    if name in LONG and name not in given.names:
        return True
    script, *arguments = f"{RUNS[name]} {SHORT.get(name, '') if given.short else ''}".split()
    print(f"\n== {name}: {script} {' '.join(arguments)}, {time.strftime('%H:%M:%S')}", flush=True)
    command = [*shlex.split(given.through), sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, check=False, cwd=HERE.parent).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
