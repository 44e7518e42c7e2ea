"""Take the pictures of the documentation: an installation of its own, an hour of a small fleet's life, then Chromium.

    .venv/bin/python docs/screenshots.py            # about six minutes; needs what ./test installs
    .venv/bin/python docs/screenshots.py --live 20  # quick: the chart of the overview is then mostly empty

The devices' past is played by the simulator's scenarios and sent with its own times; their present is sent live. The
scenarios think it is late morning, so that the sun shines at whatever hour this runs.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import urllib3

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from simulators import scenario
from simulators.dice import Dice
from simulators.registration import make_members, to_csv
from simulators.scenario import Model
from tests.dashboard_api.chromium import Browser

IMAGES = ROOT / "docs" / "images"
DEVICES, SCENARIOS = 20, ("greenhouse", "cold-chain", "pump")
PAST_S, STEP_S = 3_600, 5
SETTLE_S = 4.0  # a page draws its charts and takes some points of the feed
LATE_MORNING_S, DAY_S = 10.5 * 3_600, 86_400
SPOILED = (
    ("pump-03", b'{"flow":"n/a"}'),
    ("greenhouse-02", b'{"temp":412.7,"window_open":false}'),
    ("cold-chain-05", b'{"temp":-18.22,"setpoint":-18,"door_open":fal'),
    ("cold-chain-02", b'{"ts":"yesterday","values":{"temp":4.1}}'),
)


LOST = {"pump-03": (41, *range(118, 121))}  # numbers, so that the delivery panel has something to show


@dataclass
class Thing:
    """A simulated device with its credential."""

    name: str
    bearer: str
    model: Model
    taken: int = 0  # readings, also those that get lost on their way


@contextmanager
def installation(data: Path) -> Iterator[tuple[str, str]]:
    """Run an empty one on free ports; give its address and the admin's password."""
    argv = [sys.executable, "-P", "-m", "compose", "up", "--no-demo", "--data", str(data), "--port", "0"]
    process = subprocess.Popen([*argv, "--mqtt-port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = ""
        while "ctrl-C" not in said:
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the installation did not start")
            said += line
        yield re.findall(r"(http://\S+?)/\n", said)[0], re.findall(r"nowhere\): (\S+)", said)[0]
    finally:
        process.terminate()
        process.wait(20)


def register(http: urllib3.PoolManager, url: str, token: str) -> list[Thing]:
    """Make the device types and the devices."""
    headers = {"Authorization": f"Bearer {token}"}
    kinds = [group for name in SCENARIOS for group in scenario.load(name).groups]
    for kind in kinds:
        body = {name: part for name, part in kind.device_type(kind.type).items() if name != "name"}
        check(http.request("PUT", f"{url}/v1/device-types/{kind.type}", headers=headers, json=body))
    members = make_members(kinds, DEVICES, "", None)
    answer = check(http.request("POST", f"{url}/v1/devices:import", headers=headers, body=to_csv(members).encode()))
    bearers = {made["device"]: made["bearer"] for made in answer.json()["credentials"]}
    began_s = model_time(time.time() - PAST_S)
    return [
        Thing(member.device_id, bearers[member.device_id],
              member.group.make(Dice(str(number)), began_s, member.number))
        for number, member in enumerate(members)
    ]  # fmt: skip


def model_time(now_s: float, began_s: float = time.time()) -> float:
    """Move the time of day to a late morning."""
    return now_s - began_s % DAY_S + LATE_MORNING_S


def send(http: urllib3.PoolManager, url: str, thing: Thing, times: list[float]) -> None:
    """Send a device's readings of these times, but for those that get lost."""
    readings = []
    for at in times:
        thing.taken += 1
        reading = {"boot_id": "17", "seq": thing.taken, "ts": int(at * 1000)}
        if thing.taken not in LOST.get(thing.name, ()):
            readings.append(reading | {"values": thing.model.values(model_time(at))})
    if readings:
        check(post(http, url, thing, orjson.dumps(readings)))


def post(http: urllib3.PoolManager, url: str, thing: Thing, body: bytes) -> urllib3.BaseHTTPResponse:
    headers = {"Authorization": f"Bearer {thing.bearer}", "Content-Type": "application/json"}
    return http.request("POST", f"{url}/v1/telemetry", headers=headers, body=body)


def check(answer: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    if answer.status >= 300:
        raise SystemExit(f"{answer.status} {answer.data[:300]!r}")
    return answer


@contextmanager
def live(http: urllib3.PoolManager, url: str, things: list[Thing]) -> Iterator[None]:
    """Let every device send once a second, evenly spread, until the block ends."""
    over = threading.Event()

    def go_on() -> None:
        due = time.monotonic()
        for thing in itertools.cycle(things):
            due += 1 / len(things)
            if over.wait(max(0.0, due - time.monotonic())):
                return
            send(http, url, thing, [time.time()])

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def photograph(url: str, password: str, profile: Path) -> None:
    browser = Browser(profile)
    try:
        browser.shape(1280, 900)
        browser.open(f"{url}/login")
        browser.run("document.querySelector('[name=name]').value = 'admin'")
        browser.run(f"document.querySelector('[name=password]').value = {password!r}")
        browser.run("document.querySelector('form').submit()")
        browser.until("document.querySelector('.tiles') !== null")
        for name, path, width in (
            ("overview", "/", 1280),
            ("devices", "/devices", 1280),
            ("device", "/devices/pump-03?window=1h", 1280),
            ("quarantine", "/quarantine", 1280),
            ("phone", "/", 390),
        ):
            browser.shape(width, dark=name == "phone")
            if name == "phone":
                browser.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=2,
                             mobile=True)  # fmt: skip
            browser.open(url + path)
            time.sleep(SETTLE_S)
            browser.photograph(IMAGES / f"{name}.png", whole=name != "phone")
        if browser.console:
            raise SystemExit(f"the pages complained: {browser.console}")
    finally:
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the documentation.")
    parser.add_argument("--live", type=float, default=300, metavar="S", help="seconds of live readings first (300)")
    live_s = parser.parse_args().live
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, urllib3.PoolManager() as http:
        folder = Path(name)
        with installation(folder / "data") as (url, password):
            things = register(http, url, (folder / "data/secrets/operator.token").read_text().strip())
            now_s = time.time()
            for thing in things:
                send(http, url, thing, [now_s - past for past in range(PAST_S, 0, -STEP_S)])
            named = {thing.name: thing for thing in things}
            for device, body in SPOILED:
                post(http, url, named[device], body)
            with live(http, url, things):
                time.sleep(live_s)
                photograph(url, password, folder / "profile")
    for image in sorted(IMAGES.glob("*.png")):
        print(f"{image.relative_to(ROOT)}  {image.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
