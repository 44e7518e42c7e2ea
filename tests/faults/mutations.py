"""The mutation proof: take one safeguard out, run the test that is meant to see it, and demand that it fails.

    .venv/bin/python -m tests.faults.mutations [NAME...]

The safeguards are taken out from outside (inject/sitecustomize.py); the product has no switch for it. A test counts as
red only when its verdict names something lost or duplicated. Exit code 1 when a mutation stays green.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SEEN_BY = {
    "automatic_ack": "tests/faults/test_broker.py::test_bridge_killed_with_a_batch_unanswered_loses_nothing",
    "no_epoch_guard": "tests/faults/test_broker.py::test_stale_acks_of_an_earlier_session_delete_nothing",
    "no_fsync": "tests/faults/test_power.py::test_what_was_acknowledged_survives_a_power_cut",
    "no_dedupe": "tests/faults/test_duplicates.py::test_messages_sent_five_times_in_disorder_are_kept_once[to_broker]",
    "default_queue": "tests/faults/test_broker.py::test_queue_holds_for_a_bridge_that_is_away",
}
VERDICT = re.compile(r"AssertionError: Verdict\(.*?lost=(\d+), duplicates=(\d+)")


def main() -> int:
    names = sys.argv[1:] or list(SEEN_BY)
    return 0 if list(map(prove, names)).count(False) == 0 else 1  # all of them, also behind a green one


def prove(name: str) -> bool:
    began_s = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", SEEN_BY[name]]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"FAULT_MUTATION": name}, capture_output=True, text=True, check=False
    )
    found = VERDICT.search(ran.stdout)
    is_red = ran.returncode == 1 and found is not None
    cost = f"lost {found[1]}, duplicates {found[2]}" if found else f"no verdict, pytest says {ran.returncode}"
    print(
        f"{'red  ' if is_red else 'GREEN'} {name}: {cost} ({time.monotonic() - began_s:.0f} s) {SEEN_BY[name]}",
        flush=True,
    )
    if not is_red:
        print(ran.stdout[-3000:])
    return is_red


if __name__ == "__main__":
    sys.exit(main())
