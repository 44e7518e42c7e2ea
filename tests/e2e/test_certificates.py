"""Certificates of devices at both doors, with curl, mosquitto_pub and the command line only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.platform import Installation, free_ports
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def secured(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that made its authority and its own certificate in a first life."""
    data, ports = tmp_path_factory.mktemp("secured") / "data", free_ports(2)
    first = Installation(data, "--no-demo").start()
    first.run("ca", "init", check=True)
    first.run("ca", "server", "localhost", "--out", str(keys), check=True)
    wait_until((data / "broker/crl.pem").exists)
    first.stop()
    more = ("--tls-cert", str(keys / "localhost.pem"), "--tls-key", str(keys / "localhost.key"), "--mqtts-port")
    second = Installation(data, "--no-demo", *more, str(ports[0]), "--mqtt-cert-port", str(ports[1])).start()
    second.cert_port = ports[1]  # type: ignore[attr-defined]
    yield second
    second.stop()


def post(secured: Installation, keys: Path, name: str, *more: str) -> str:
    """Publish over HTTPS with a certificate; give the status."""
    shown = ["--cacert", f"{keys}/ca.pem", "--cert", f"{keys}/{name}.pem", "--key", f"{keys}/{name}.key"]
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *shown, "-d", '{"t": 1}', *more]
    command += ["-H", "Content-Type: application/json", f"https://localhost:{secured.port}/v1/telemetry"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout


def publish(secured: Installation, keys: Path, name: str, device: str) -> int:
    port = str(secured.cert_port)  # type: ignore[attr-defined]
    command = ["mosquitto_pub", "-h", "localhost", "-p", port, "--cafile", f"{keys}/ca.pem"]
    command += ["--cert", f"{keys}/{name}.pem", "--key", f"{keys}/{name}.key", "-q", "1", "-V", "mqttv5"]
    command += ["-t", f"devices/{device}/telemetry", "-m", '{"t": 2}']
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode


def test_certificate_opens_both_doors_until_it_is_revoked(secured, keys) -> None:
    secured.run("device", "add", "c-1", check=True)
    secured.run("ca", "issue", "c-1", "--out", str(keys), check=True)

    assert post(secured, keys, "c-1") == "202"
    assert publish(secured, keys, "c-1", "c-1") == 0

    port = str(secured.cert_port)
    command = ["mosquitto_sub", "-h", "localhost", "-p", port, "--cafile", f"{keys}/ca.pem", "--cert"]
    command += [f"{keys}/c-1.pem", "--key", f"{keys}/c-1.key", "-t", "devices/c-1/commands/+"]
    standing = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    near = ["status", "--json"]
    assert secured.run(*near).returncode == 0
    wait_until(lambda: '"online": true' in secured.run("device", "show", "c-1", "--json").stdout, 10)

    secured.run("device", "disable", "c-1", check=True)

    wait_until(lambda: standing.poll() is not None, 4, what="the standing connection is cut")
    assert publish(secured, keys, "c-1", "c-1") != 0
    assert post(secured, keys, "c-1") in ("401", "403")


def test_header_of_a_client_is_no_certificate(secured, keys) -> None:
    secured.run("device", "add", "c-3", check=True)
    secured.run("ca", "issue", "c-3", "--out", str(keys), check=True)
    from urllib.parse import quote

    forged = f"X-Client-Certificate: {quote((keys / 'c-3.pem').read_text())}"
    url = f"https://localhost:{secured.port}/v1/telemetry"
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", f"{keys}/ca.pem", "-H", forged]
    command += ["-H", "Content-Type: application/json", "-d", '{"t": 1}', url]

    assert subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout == "401"
    assert post(secured, keys, "c-3") == "202"
