"""Can the time of a refusal tell how much of a secret was right? Welch's t-test on refusals of two kinds, interleaved.

    python bench/timing.py --rounds 10000 --logins 300

The services in one process, without a network between them, so that nothing hides a difference. abs(t) below 4.5 is
what dudect (Reparaz and others, 2017) takes for no difference to be seen. Ids of devices are no secrets and are not
compared.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import results  # noqa: E402

from devices.config import DevicesConfig  # noqa: E402
from devices.people.passwords import hash_password  # noqa: E402
from ingest.app import create_app as create_ingest  # noqa: E402
from ingest.config import IngestConfig  # noqa: E402
from tests.devices.running import ADMIN, SERVICE, Service  # noqa: E402
from tests.support.in_process import AppPeer  # noqa: E402

KEPT = 0.9  # the slowest tenth of all is the machine's doing
LIMIT = 4.5
Ask = Callable[[int], Any]


def t_of(one: list[float], other: list[float]) -> float:
    """Give Welch's t of two samples, cropped at one place for both."""
    most = sorted(one + other)[int(KEPT * len(one + other))]
    low, high = ([each for each in sample if each <= most] for sample in (one, other))
    spread = statistics.variance(low) / len(low) + statistics.variance(high) / len(high)
    return (statistics.fmean(low) - statistics.fmean(high)) / float(spread**0.5)


def compare(one: Ask, other: Ask, rounds: int) -> tuple[float, float]:
    """Ask both in random order; give t, and the difference of the medians in microseconds."""
    chance, took = random.Random(1), ([], [])  # type: tuple[random.Random, tuple[list[float], list[float]]]
    for number in range(2 * rounds):
        which = chance.randrange(2)
        began_s = time.perf_counter()
        answer = (one, other)[which](number)
        took[which].append(time.perf_counter() - began_s)
        assert answer.status_code in (401, 429), answer.text
    return t_of(*took), (statistics.median(took[0]) - statistics.median(took[1])) * 1e6


def cases(folder: Path, rounds: int, logins: int) -> dict[str, tuple[Ask, Ask, int]]:
    """Start the services; give what is compared: a nearly right secret with a wholly wrong one."""
    config = DevicesConfig(data=folder, broker="", operator_token=ADMIN, service_token=SERVICE,
                           admin_hash=hash_password("first password"))  # fmt: skip
    registry = Service(config)
    secret = registry.register("d1")
    token = registry.admin("POST", "/v1/tokens", {"name": "t", "role": "viewer"}).json["token"]
    ingest = create_ingest(
        IngestConfig(data=folder, service_token=SERVICE), AppPeer(registry.app, SERVICE)
    ).test_client()

    def post(presented: str) -> Ask:
        headers = {"Authorization": f"Bearer d1.{presented}"}
        return lambda _: ingest.post("/v1/telemetry", data=b"{}", content_type="application/json", headers=headers)

    def read(presented: str) -> Ask:
        return lambda _: registry.nobody("GET", "/v1/devices", headers={"Authorization": f"Bearer {presented}"})

    def log_in(name: str) -> Ask:
        def ask(number: int) -> Any:
            body = {"name": name, "password": "wrong password", "remote_ip": f"10.{number % 250}.{number // 250}.1"}
            return registry.internal("POST", "/internal/operators:login", body)

        return ask

    wrong = "x" * 43
    return {
        "secret of a device": (post(secret[:42] + "~"), post(wrong), rounds),
        "token of an operator": (read(token[:42] + "~"), read(wrong), rounds),
        "name of an operator": (log_in("admin"), log_in("nobody"), logins),
    }


def main() -> int:
    """Print the table; give how many of them can be told apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--logins", type=int, default=300)
    given, before, lines = parser.parse_args(), results.conditions(), []
    with tempfile.TemporaryDirectory() as folder:
        for name, (one, other, rounds) in cases(Path(folder), given.rounds, given.logins).items():
            t, difference_us = compare(one, other, rounds)
            print(
                f"{name}: t = {t:+.2f}, medians differ by {difference_us:+.1f} us ({2 * rounds} refusals)", flush=True
            )
            lines.append(
                results.Line(f"refusals told apart by time: {name}", abs(round(t, 2)), "t", LIMIT, is_most=True)
            )
    results.save("timing", before, {line.what: line.seen for line in lines}, lines)
    return sum(not line.reaches(LIMIT) for line in lines)


if __name__ == "__main__":
    sys.stdout.flush()
    raise SystemExit(main())
