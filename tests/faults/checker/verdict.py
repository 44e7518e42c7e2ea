"""The verdict: the history on disk against the public queries. lost = acknowledged - stored; duplicates = rows - distinct.

.venv/bin/python -m tests.faults.checker.verdict FOLDER --url http://127.0.0.1:8080 --token-file FILE
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.checker import api, history
from tests.faults.checker.history import Key

QUIET_S = 5.0  # with nothing pending, what has not appeared for so long will not


@dataclass
class Verdict:
    sent: int = 0
    acked: int = 0
    stored: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0  # rows that say something else than was sent
    foreign: int = 0  # rows that nobody sent
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicates or self.wrong or self.foreign)


def judge(door: api.Door, folder: Path, within_s: float = 60.0) -> Verdict:
    """Look until nothing is missing, or nothing is pending and nothing new appeared, or the deadline."""
    account = history.load(folder)
    deadline_s = time.monotonic() + within_s
    best, changed_s = -1, time.monotonic()
    while True:
        is_drained = door.get("/v1/ledger")["pending"] == 0
        verdict = _compare(door, account)
        if verdict.stored != best:
            best, changed_s = verdict.stored, time.monotonic()
        is_quiet = is_drained and time.monotonic() - changed_s > QUIET_S
        if (not verdict.lost and is_drained) or is_quiet or time.monotonic() > deadline_s:
            return verdict
        time.sleep(0.25)


def _compare(door: api.Door, account: history.Account) -> Verdict:
    verdict = Verdict(len(account.sent), len(account.acked))
    seen: set[Key] = set()
    for device in sorted({key.device for key in account.sent}):
        for row in door.rows(device):
            fields = row["fields"]
            key = Key(device, str(fields.get("b")), int(fields.get("n", -1)))
            if key not in account.sent:
                verdict.foreign += 1
            elif key in seen:
                verdict.duplicates += 1
                verdict.examples.append(f"twice: {key}")
            elif fields.get("v") != key.value:
                verdict.wrong += 1
            seen.add(key)
    verdict.stored = len(seen & account.sent)
    missing = account.acked - seen
    verdict.lost = len(missing)
    verdict.examples += [f"lost: {key}" for key in sorted(missing)]
    del verdict.examples[10:]
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(description="check a history again")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    arguments = parser.parse_args()
    door = api.operator(arguments.url, arguments.token_file)
    verdict = judge(door, arguments.folder)
    door.close()
    print(json.dumps(asdict(verdict), indent=1))
    return 0 if verdict.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
