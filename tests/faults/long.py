"""The long form: random kills and freezes of an installation under load until a number or a time is reached.

    .venv/bin/python -m tests.faults.long --seed 14 --kills 1000
    .venv/bin/python -m tests.faults.long --minutes 60 --folder /tmp/faults

Prints seed, kills, acknowledged, lost, duplicates, recovery; exit code 1 when anything was lost or repeated. The folder
keeps the history and the data: `--check FOLDER` starts the platform on them again and gives the verdict once more, and
`--sum FOLDER...` adds up what several runs found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.platform import Installation
from tests.faults.checker import verdict
from tests.faults.checker.probe import Probe
from tests.faults.rig import VICTIMS, Site
from tests.faults.storm import Storm, total

RUN = "long-1"
FIGURES = "figures.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--kills", type=int, default=10**9, help="faults, kills and freezes together")
    parser.add_argument("--minutes", type=float, default=0.0, help="0: until the number is reached")
    parser.add_argument("--freeze", type=float, default=5.0, help="longest freeze in seconds")
    parser.add_argument("--together", type=int, default=1, help="hit up to so many processes at the same moment")
    parser.add_argument("--broker", action="store_true", help="kill the broker too; devices heed the acks topic then")
    parser.add_argument("--devices", type=int, default=12, help="two thirds over MQTT; each 20 readings a second")
    parser.add_argument("--folder", type=Path, help="where history and data stay; default: a new one below /tmp")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="give the verdict on an earlier run again")
    parser.add_argument("--sum", type=Path, nargs="+", metavar="FOLDER", help="add up earlier runs")
    arguments = parser.parse_args()
    if arguments.check:
        return check(arguments.check)
    if arguments.sum:
        print(total(json.loads((folder / FIGURES).read_text()) for folder in arguments.sum))
        return 0
    if not arguments.minutes and arguments.kills == 10**9:
        parser.error("give --kills or --minutes")
    return run(arguments, arguments.folder or Path(tempfile.mkdtemp(prefix="headwater-faults-")))


def run(arguments: argparse.Namespace, folder: Path) -> int:
    print(f"seed {arguments.seed}, history and data in {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    site = Site(Installation(folder / "data").start(HEADWATER_WORKERS="2"))
    running = site.run("long").repairing().start(mqtt=arguments.devices * 2 // 3, http=arguments.devices // 3)
    probe = Probe(site.door, site.mqtt)
    victims = (*VICTIMS, "broker") if arguments.broker else VICTIMS
    storm = Storm(arguments.seed, victims, arguments.together)
    until_s = time.monotonic() + (arguments.minutes * 60 or float("inf"))
    storm.blow(running, probe, until_s=until_s, most=arguments.kills, longest_freeze_s=arguments.freeze)
    probe.close()
    found = running.finish(600)
    figures = storm.figures(found)
    (folder / FIGURES).write_text(json.dumps(figures))
    print(total([figures]), *found.examples, sep="\n")
    site.stop()
    return 0 if found.is_clean else 1


def check(folder: Path) -> int:
    site = Site(Installation(folder / "data").start())
    found = verdict.judge(site.door, folder / "histories" / RUN, 600)
    print(found)
    site.stop()
    return 0 if found.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
