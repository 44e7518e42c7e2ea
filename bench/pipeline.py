"""The whole way of a message, measured on an installation of its own: figures, their conditions, CPU by process.

    .venv/bin/python bench/pipeline.py [mqtt|visible|single|batch|fresh|held ...] [--seconds 8]

The load generator shares the machine's cores with everything it measures. A rate counts as sustained when the offered
rate was reached, 99 of 100 publishes were answered within SETTLE_S, and every message is stored, the last of them
within SETTLE_S of the last answer. CPU time per message
hardly depends on what else the machine does; rates and percentiles do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402
import results  # noqa: E402

from tests.e2e.platform import HEADWATER, Installation  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

RATES = (5_000, 10_000, 15_000, 20_000, 25_000, 30_000)
DEVICES = 200
SETTLE_S = 1.0
REACHED = 0.98
CONNECTIONS = (16, 32, 64)


@contextmanager
def installation(devices: int) -> Iterator[tuple[Installation, list[load.Login]]]:
    with tempfile.TemporaryDirectory() as folder:
        running = Installation(Path(folder) / "data").start()
        try:
            yield running, register(running, devices)
        finally:
            running.stop()


def register(running: Installation, devices: int) -> list[load.Login]:
    table = "id\n" + "\n".join(f"bench-{number}" for number in range(devices))
    answer = running.call("POST", "/v1/devices:import", table.encode(), Content_Type="text/csv")
    assert answer.status == 200, answer
    return [load.Login(each["device"], each["secret"]) for each in answer.body["credentials"]]


class Watch:
    """What a run cost: CPU time of every process, from the start of the load until all of it is stored."""

    def __init__(self, running: Installation) -> None:
        self._running = running
        self._before = self._cpu()
        self._stored = self._settle()["stored"]
        self.us: dict[str, float] = {}  # CPU time a message, by process

    def end(self, result: load.Result) -> tuple[float, int]:
        """Wait until all is stored; print the CPU by process; give the seconds waited and the readings stored."""
        began_s = time.monotonic()
        with suppress(AssertionError):
            wait_until(lambda: self._running.get("/v1/ledger")["stored"] >= self._stored + result.sent, 30)
        waited_s = time.monotonic() - began_s
        stored = self._settle()["stored"] - self._stored
        spent = {name: cpu_s - self._before.get(name, 0.0) for name, cpu_s in self._cpu().items()}
        spent |= {"generator": result.cpu_s}
        each = {name: 1e6 * cpu_s / max(1, result.sent) for name, cpu_s in spent.items()}
        self.us = {name: round(us, 1) for name, us in each.items() if us >= 0.05} | {
            "all": round(sum(each.values()), 1)
        }
        parts = ", ".join(f"{name} {us:.1f}" for name, us in each.items() if us >= 0.05)
        print(f"    CPU us/message: {parts}; all {sum(each.values()):.1f}", flush=True)
        return waited_s, stored

    def _cpu(self) -> dict[str, float]:
        return {usage.name: usage.cpu_s for usage in footprint.measure(self._running.data, with_memory=False)}

    def _settle(self) -> dict[str, int]:
        ledger: dict[str, int] = wait_until(
            lambda: (sheet := self._running.get("/v1/ledger"))["pending"] == 0 and sheet, 60, "pending 0", every_s=0.05
        )
        return ledger


def measure_mqtt(seconds: float, rates: Sequence[int] = RATES) -> None:
    print("\nQoS 1: device -> broker -> bridge -> ingest -> fsync -> ack -> stored (budget 20,000/s)")
    sustained, before, runs = 0, results.conditions(), []
    with installation(DEVICES) as (running, logins):
        wait_for_broker(running, logins[-1])
        load.run_apart(load.publish, ("127.0.0.1", running.mqtt), logins, 1_000, 1, "warm")
        for rate in rates:
            watch = Watch(running)
            result = load.run_apart(load.publish, ("127.0.0.1", running.mqtt), logins, rate, seconds, f"r{rate}")
            reached = result.sent / result.seconds
            print(f"  offered {rate:,}/s: reached {reached:,.0f}/s, broker's ack {shown(result)}, {load_average()}")
            waited_s, stored = watch.end(result)
            print(f"    sent {result.sent:,}, lost {result.sent - stored:,}; all stored {waited_s:.2f} s later")
            lag_s = max(waited_s, result.percentile(0.99) / 1e3)
            runs.append({"offered": rate, "reached": round(reached), **figures(result, stored), "us": watch.us})
            if reached < REACHED * rate or stored != result.sent or lag_s > SETTLE_S:
                break
            sustained = rate
    print(f"  sustained: {sustained:,}/s")
    most = max(runs, key=lambda run: run["reached"])
    lines = [
        results.Line("QoS 1 to stored, sustained, none lost", sustained, "/s", 20_000, 60_000),
        results.Line("the same, most that was reached", most["reached"], "/s"),
        results.Line(f"CPU of all processes at {most['offered']:,}/s offered", most["us"]["all"], "us a message"),
    ]
    results.save("mqtt", before, {"runs": runs}, lines)


def wait_for_broker(running: Installation, login: load.Login) -> None:
    def is_let_in() -> bool:
        try:
            load.publish(("127.0.0.1", running.mqtt), [login], 1, 0, "probe")
        except ConnectionRefusedError:
            return False
        return True

    wait_until(is_let_in, 10, "the broker takes the devices", every_s=0.1)


def measure_visible(seconds: float) -> None:
    rate, devices, before = 5_000, 500, results.conditions()
    print(f"\npublish -> queryable at {rate:,} msg/s (budget p99 500 ms); sampled by the simulator, poll 20 ms")
    with installation(0) as (running, _), tempfile.TemporaryDirectory() as folder:
        watch, report = Watch(running), Path(folder) / "report.json"
        command = [HEADWATER, "sim", "run", "--devices", str(devices), "--rate", f"{rate // devices}/s"]
        command += ["--ramp", "250/s", "--duration", f"{3 * seconds:.0f}s", "--report", str(report)]
        command += ["--url", running.url, "--mqtt", f"127.0.0.1:{running.mqtt}"]
        command += ["--token-file", str(running.data / "secrets/operator.token")]
        cpu_s = os.times().children_user + os.times().children_system
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told = json.loads(report.read_text())
        result = load.Result(told["sent"], told["acked"])
        result.cpu_s = os.times().children_user + os.times().children_system - cpu_s
        print(f"  acked {told['acked']:,} of {told['sent']:,}, {told['rate_s']:,.0f}/s, {load_average()}")
        print(f"  broker's ack ms {told['ack_ms']}; visible ms {told['visible_ms']}; errors {told['errors']}")
        _, stored = watch.end(result)
        print(f"    lost {told['sent'] - stored:,}")
    line = results.Line(
        f"publish to queryable at {rate:,}/s, p99", round(told["visible_ms"]["p99"]), "ms", 500, 150, True
    )
    results.save(
        "visible", before, {name: told[name] for name in ("rate_s", "ack_ms", "visible_ms")} | {"us": watch.us}, [line]
    )


def measure_http(title: str, counts: tuple[int, ...], batch: int, seconds: float) -> list[dict[str, Any]]:
    print(f"\n{title}; closed loop")
    runs = []
    with installation(max(counts)) as (running, logins):
        for count in counts:
            load.run_apart(load.post, ("127.0.0.1", running.port), logins[:count], 0.5, f"w{count}", batch)
            watch = Watch(running)
            result = load.run_apart(load.post, ("127.0.0.1", running.port), logins[:count], seconds, f"c{count}", batch)
            rate = result.acked / result.seconds
            answers = f"ack {shown(result)}, {told(result)}"
            print(f"  {count} connections: {rate:,.0f} messages/s, {answers}, {load_average()}")
            waited_s, stored = watch.end(result)
            print(f"    acked {result.acked:,}, lost {result.acked - stored:,}; all stored {waited_s:.2f} s later")
            late = {"stored_s_later": round(waited_s, 2)}
            runs.append({"connections": count, "rate": round(rate), **figures(result, stored), **late, "us": watch.us})
    return runs


def measure_single(seconds: float) -> None:
    title = "HTTP, one message a POST, one worker, through the gateway, with auth and fsync (budget 1,500/s)"
    before = results.conditions()
    runs = measure_http(title, CONNECTIONS, 1, seconds)
    best = max(run["rate"] for run in runs)
    line = results.Line("HTTP, one message a POST, one worker", best, "/s", 1_500, 5_000)
    results.save("single", before, {"runs": runs}, [line])


def measure_batch(seconds: float) -> None:
    before = results.conditions()
    runs = measure_http("HTTP, NDJSON of 500, through the gateway (budget 100,000 messages/s)", (8, 12), 500, seconds)
    best = max(runs, key=lambda run: run["rate"])
    stored = max(run["acked"] / (run["acked"] / run["rate"] + run["stored_s_later"]) for run in runs)
    lines = [
        results.Line("HTTP, NDJSON of 500, accepted", best["rate"], "readings/s", 100_000, 300_000),
        results.Line("the same, until the last was stored", round(stored), "readings/s"),
        results.Line("the same, CPU of all processes", best["us"]["all"], "us a reading"),
    ]
    results.save("batch", before, {"runs": runs}, lines)


def measure_fresh(_seconds: float) -> None:
    print("\nHTTP, 1,000 devices that the service does not know yet, all at once (nothing but 202 may come)")
    with installation(1_000) as (running, logins):
        watch = Watch(running)
        result = load.run_apart(load.post, ("127.0.0.1", running.port), logins, 0, "fresh", 1)
        print(f"  answered in {result.seconds:.2f} s, ack {shown(result)}, {told(result)}, {load_average()}")
        watch.end(result)


def measure_held(_seconds: float) -> None:
    print("\nHTTP, 5,000 devices with a connection of their own each, 500 posting at once (nothing but 202 may come)")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with installation(5_000) as (running, logins):
        result = load.run_apart(load.post_in_turn, ("127.0.0.1", running.port), logins, 500)
        memory = ", ".join(f"{usage.name} {usage.pss_mb:.0f}" for usage in footprint.measure(running.data))
        print(f"  {result.seconds:.1f} s, ack {shown(result)}, {told(result)}, {load_average()}; then PSS MB: {memory}")


def figures(result: load.Result, stored: int) -> dict[str, float]:
    parts = {f"ack_p{share}_ms": round(result.percentile(share / 100), 1) for share in (50, 95, 99)}
    return parts | {"acked": result.acked, "lost": result.acked - stored}


def shown(result: load.Result) -> str:
    return "ms " + " ".join(f"p{share} {result.percentile(share / 100):.1f}" for share in (50, 95, 99))


def told(result: load.Result) -> str:
    return ", ".join(f"{count:,} x {status}" for status, count in sorted(result.answers.items()))


def load_average() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


SETUPS: dict[str, Callable[[float], None]] = {
    "mqtt": measure_mqtt,
    "visible": measure_visible,
    "single": measure_single,
    "batch": measure_batch,
    "fresh": measure_fresh,
    "held": measure_held,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[[], *SETUPS], default=list(SETUPS))
    parser.add_argument("--seconds", type=float, default=8, help="of each run")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, help="of mqtt, each tried when the last held")
    given = parser.parse_args()
    machine = f"{os.cpu_count()} CPUs {platform.machine()}, Python {platform.python_version()}, {load_average()} before"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}; the load generator shares the cores", flush=True)
    for name in given.what:
        SETUPS[name](given.seconds) if name != "mqtt" else measure_mqtt(given.seconds, given.rates)


if __name__ == "__main__":
    main()
