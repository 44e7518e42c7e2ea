"""Devices that come while others publish, the import of very many, and what their list costs the broker.

    .venv/bin/python bench/enrolment.py [--rate 5000] [--seconds 15] [--devices 100000] [--reloads 5]

One installation. First telemetry by MQTT alone, then the same while devices enrol at 1,000 a minute in an open loop;
then a CSV file of so many devices as one job, with the registry's memory; then the broker reads its list of them anew
several times, because a device was added, while devices publish: the longest wait of a publish is the stall.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402
import pipeline  # noqa: E402
import results  # noqa: E402

from tests.e2e.platform import Installation  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

A_MINUTE = 1_000  # enrolments
STALL_RATE = 500  # publishes a second while the list is read
BETWEEN_S = 3.0  # reloads: the broker is done with one before the next


def enrol(address: tuple[str, int], token: str, seconds: float) -> load.Result:
    """Enrol devices at A_MINUTE in an open loop: the time of each counts from when it was due."""
    caller, result, began_s = load.Caller(address, token), load.Result(), time.monotonic()
    for number in range(int(seconds * A_MINUTE / 60)):
        due_s = began_s + number * 60 / A_MINUTE
        time.sleep(max(0.0, due_s - time.monotonic()))
        caller.ask("POST", "/v1/enrol", {"id": f"enrolled-{number}"})
        result.ack_ms.append(1e3 * (time.monotonic() - due_s))
        result.sent += 1
    return result


def stream(running: Installation, logins: list[load.Login], given: argparse.Namespace, boot: str) -> dict[str, Any]:
    """Publish at the rate; give what was reached, lost and spent."""
    watch = pipeline.Watch(running)
    mqtt = ("127.0.0.1", running.mqtt)
    result = load.run_apart(load.publish, mqtt, logins, given.rate, given.seconds, boot)
    _, stored = watch.end(result)
    found = {"rate": round(result.sent / result.seconds, 1), **pipeline.figures(result, stored), "us": watch.us}
    found["lost"] = result.sent - stored
    print(f"  {boot}: {found['rate']:,.0f}/s of {given.rate:,.0f}/s, lost {found['lost']}, {pipeline.shown(result)}")
    return found


def stream_and_enrol(
    running: Installation, logins: list[load.Login], given: argparse.Namespace
) -> tuple[dict[str, Any], load.Result]:
    token = running.call("POST", "/v1/enrolments", {"name": "bench", "max_devices": 10_000}).body["secret"]
    enrolled: list[load.Result] = []
    arguments = (("127.0.0.1", running.port), token, given.seconds)
    beside = threading.Thread(target=lambda: enrolled.append(load.run_apart(enrol, *arguments)))
    beside.start()
    found = stream(running, logins, given, "while-enrolling")
    beside.join()
    return found, enrolled[0]


def bring(running: Installation, devices: int) -> dict[str, Any]:
    """Import a file of devices as a job; give seconds, and the registry's memory before and at most, MB."""
    table = "id,type,tag.site,attr.floor\n" + "".join(
        f"dev-{n:06},type-{n % 20},s{n % 50},{n % 9}\n" for n in range(devices)
    )
    pids = footprint.sessions()[_pid_of(running, "devices")]
    before_mb, began_s = sum(map(footprint.pss_mb, pids)), time.monotonic()
    answer = running.call("POST", "/v1/devices:import?job=true", table.encode(), Content_Type="text/csv")
    assert answer.status == 202, answer
    most_mb, job = before_mb, answer.body
    while job["state"] in ("queued", "running"):
        time.sleep(0.25)
        most_mb = max(most_mb, sum(map(footprint.pss_mb, pids)))
        job = running.get(f"/v1/jobs/{job['id']}")
    took_s = time.monotonic() - began_s
    assert (job["state"], job["failed"]) == ("done", 0), job
    print(
        f"  {devices:,} devices imported in {took_s:.1f} s; registry {before_mb:.0f} MB before, {most_mb:.0f} at most"
    )
    return {"devices": devices, "seconds": round(took_s, 1), "before_mb": round(before_mb), "most_mb": round(most_mb)}


def reload(running: Installation, logins: list[load.Login], devices: int, times: int) -> dict[str, Any]:
    """Have the broker read its whole list so often while devices publish; give the publishes' waits in ms."""
    passwd = running.data / "broker/devices.passwd"
    caller, written, ended = load.Caller(("127.0.0.1", running.port), running.token), set(), threading.Event()
    wait_until(lambda: passwd.read_bytes().count(b"\n") > devices and _is_settled(passwd), 120, "the list is written")

    def change() -> None:
        for number in range(times):
            ended.wait(BETWEEN_S)
            caller.ask("POST", "/v1/devices", {"id": f"late-{number}"})
        ended.wait(BETWEEN_S)

    def look() -> None:
        while not ended.wait(0.05):
            written.add(passwd.stat().st_mtime_ns)

    threads = [threading.Thread(target=each) for each in (change, look)]
    for thread in threads:
        thread.start()
    seconds = BETWEEN_S * (times + 1)
    result = load.run_apart(load.publish, ("127.0.0.1", running.mqtt), logins, STALL_RATE, seconds, "reload")
    threads[0].join()
    ended.set()
    threads[1].join()
    waits = {"p50_ms": round(result.percentile(0.5), 1), "stall_ms": round(max(result.ack_ms), 1)}
    print(f"  list of {passwd.stat().st_size / 1e6:.1f} MB written {len(written) - 1} x: waits {waits}")
    return waits | {
        "written": len(written) - 1,
        "list_bytes": passwd.stat().st_size,
        "lost": result.sent - result.acked,
    }


def _is_settled(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > BETWEEN_S


def _pid_of(running: Installation, name: str) -> int:
    state = json.loads((running.data / "run/state.json").read_text())
    return int(next(record["pid"] for record in state["processes"] if record["name"] == name))


def lines_of(found: dict[str, Any]) -> list[results.Line]:
    alone, beside, imported = found["alone"], found["while_enrolling"], found["import"]
    slowed = 100 * (1 - beside["rate"] / alone["rate"])
    what = f"{A_MINUTE:,} enrolments a minute beside {alone['rate']:,.0f} msg/s"
    many = f"{imported['devices']:,} devices"
    return [
        results.Line(f"{what}: messages lost", beside["lost"], "", 0, is_most=True),
        results.Line(f"{what}: telemetry slowed by", round(slowed, 1) + 0.0, "%", 5, is_most=True),
        results.Line(f"{what}: p99 of the broker's ack, before {alone['ack_p99_ms']:g}", beside["ack_p99_ms"], "ms"),
        results.Line(f"{what}: p99 of an enrolment", found["enrolment_p99_ms"], "ms"),
        results.Line(f"import of {many} as a job", imported["seconds"], "s"),
        results.Line(f"the same, registry's memory at most, before {imported['before_mb']}", imported["most_mb"], "MB"),
        results.Line(f"broker reads a list of {many}: longest wait of a publish", found["reload"]["stall_ms"], "ms"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5_000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--reloads", type=int, default=5)
    given, before = parser.parse_args(), results.conditions()
    with pipeline.installation(pipeline.DEVICES) as (running, logins):
        pipeline.wait_for_broker(running, logins[-1])
        load.run_apart(load.publish, ("127.0.0.1", running.mqtt), logins, 1_000, 2, "warm")
        found: dict[str, Any] = {"alone": stream(running, logins, given, "alone")}
        found["while_enrolling"], enrolled = stream_and_enrol(running, logins, given)
        found["enrolled"] = enrolled.sent
        found |= {f"enrolment_p{n}_ms": round(enrolled.percentile(n / 100), 1) for n in (50, 99)}
        print(f"  {enrolled.sent} enrolled, {pipeline.shown(enrolled)}")
        found["import"] = bring(running, given.devices)
        found["reload"] = reload(running, logins, given.devices, given.reloads)
    results.save("enrolment", before, found, lines_of(found))


if __name__ == "__main__":
    main()
