"""A protocol in a package of its user's, the example of the documentation: installed, found by all, and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.platform import HEADWATER, Device, Installation
from tests.support.waiting import wait_until

EXAMPLE = Path(__file__).parents[2] / "docs/examples/headwater-weather"
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the example's wheel and unpack it, which is what installing it means; beside it, a broken package."""
    folder = tmp_path_factory.mktemp("own-protocol")
    source, target = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(target)
    broken = target / "headwater_broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: headwater-broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[headwater.protocols]\nbroken = headwater_broken:PROTOCOL\n")
    return target


@pytest.fixture(scope="module")
def installation(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("own") / "data")
    yield made.start(PYTHONPATH=str(site))
    assert made.stop() == 0


@pytest.fixture(scope="module")
def gateway(installation: Installation) -> Device:
    return installation.add_device("mast", gateway=True)


def say(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run([HEADWATER, *map(str, arguments)], env=environ, capture_output=True, text=True, check=False)


def fields(installation: Installation, device: str) -> list[dict[str, float]]:
    return [point["fields"] for point in installation.points(device)]


def test_reading_by_http_reaches_the_store(installation: Installation, gateway: Device) -> None:
    by_path = installation.post(gateway, b"temp=21.5C", "/v1/telemetry/weather")
    by_type = installation.post(gateway, b"hum=40%", Content_Type="text/vnd.weather; charset=utf-8")

    assert (by_path.status, by_type.status) == (202, 202), (by_path, by_type)
    wait_until(lambda: len(fields(installation, "mast")) == 2, 10, what="two readings")


def test_reading_on_a_claimed_topic_is_of_the_station(installation: Installation, gateway: Device) -> None:
    claim = {"filter": "weather/#", "protocol": "weather"}
    assert installation.call("POST", "/v1/devices/mast/topics", claim).status == 201
    installation.wait_for_broker(gateway)

    def arrives() -> bool:  # the claim holds within 2 s
        installation.publish(gateway, "weather/roof", b"temp=3.5C")
        return {"temp": 3.5} in fields(installation, "roof")

    wait_until(arrives, 15, what="the station's reading")


def test_line_that_cannot_be_read_is_quarantined(installation: Installation, gateway: Device) -> None:
    assert installation.post(gateway, b"temp: warm", "/v1/telemetry/weather").status == 400

    waiting = installation.quarantined("mast")
    assert [(each["protocol"], each["code"]) for each in waiting] == [("weather", "bad_syntax")]


def test_broken_package_is_named_and_costs_nothing_else(installation: Installation, site: Path) -> None:
    status = say(site, "status", "--data", installation.data).stdout

    assert "REFUSED: the protocol broken = headwater_broken:PROTOCOL: ModuleNotFoundError" in status
    assert "ingest-weather" in status
    assert "refused the protocol broken" in installation.output()


def test_cases_of_the_example_are_checked_without_an_installation(site: Path) -> None:
    checked = say(site, "protocol", "check", EXAMPLE / "cases/weather")

    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "3 of 3 cases are as expected"), checked
