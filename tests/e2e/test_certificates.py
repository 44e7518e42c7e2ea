"""Certificates of devices at both doors, with curl, mosquitto_pub and the command line only."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.x509 import pki
from tests.e2e.platform import Installation, free_ports
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def secured(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that made its authority and its own certificate at its first start."""
    data, ports = tmp_path_factory.mktemp("secured") / "data", free_ports(2)
    wanted = ("--tls", "--mqtts-port", str(ports[0]), "--mqtt-cert-port", str(ports[1]))
    started = Installation(data, "--no-demo", *wanted).start()
    started.secure_port, started.cert_port = ports  # type: ignore[attr-defined]
    (keys / "ca.pem").write_bytes((data / "tls/ca.pem").read_bytes())
    yield started
    started.stop()


def post(secured: Installation, keys: Path, name: str, path: str = "telemetry") -> str:
    """Publish (or PATCH what is reported) over HTTPS with a certificate; give the status."""
    shown = ["--cacert", f"{keys}/ca.pem", "--cert", f"{keys}/{name}.pem", "--key", f"{keys}/{name}.key"]
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *shown, "-d", '{"t": 1}']
    command += ["-X", "POST" if path == "telemetry" else "PATCH", "-H", "Content-Type: application/json"]
    command += [f"https://localhost:{secured.port}/v1/{path}"]
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
    assert post(secured, keys, "c-1", "device/twin/reported") == "200"
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
    assert post(secured, keys, "c-1", "device/twin/reported") in ("401", "403")


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


def test_renewed_certificate_is_served_by_both_without_a_restart(secured, keys) -> None:
    def served(port: int) -> list[str]:
        context = ssl.create_default_context(cafile=str(keys / "ca.pem"))
        raw = socket.create_connection(("127.0.0.1", port), 10)
        with raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
            return [name for kind, name in wrapped.getpeercert()["subjectAltName"] if kind == "DNS"]

    ports = (secured.port, secured.secure_port)
    assert not any("other.example" in served(port) for port in ports)
    key = str(secured.data / "secrets/registry.key")
    command = [
        sys.executable,
        "-P",
        "-m",
        "compose.issuer",
        str(secured.data),
        "other.example",
        "localhost",
        "127.0.0.1",
    ]
    subprocess.run(command, env=os.environ | {"HEADWATER_REGISTRY_KEY_FILE": key}, check=True, timeout=60)

    for port in ports:
        wait_until(lambda port=port: "other.example" in served(port), 10, what=f"port {port} serves the new one")
    states = secured.status()["processes"]
    assert [each["restarts"] for each in states if each["name"] in ("broker", "gateway")] == [0, 0]


def test_device_of_a_customers_authority_reaches_mqtt_by_a_certificate_of_ours(secured, keys) -> None:
    """As docs/enrolment.md tells it: the maker's certificate opens HTTPS, and asks there for one for MQTT."""
    openssl(keys, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=Maker"
            " -keyout maker-ca.key -out maker-ca.pem")  # fmt: skip
    made = secured.run("ca", "register", "maker", f"{keys}/maker-ca.pem", "--ids", "pump-*", "--json", check=True)
    for name, subject in (("proof", json.loads(made.stdout)[0]["challenge"]), ("pump-7", "pump-7"), ("mqtt", "any")):
        request(keys, name, subject)
        if name != "mqtt":
            openssl(keys, f"x509 -req -in {name}.csr -CA maker-ca.pem -CAkey maker-ca.key -CAcreateserial -days 9"
                    f" -out {name}.pem")  # fmt: skip
    secured.run("ca", "prove", "maker", f"{keys}/proof.pem", check=True)

    wait_until(lambda: post(secured, keys, "pump-7") == "202", 10)
    refused = publish(secured, keys, "pump-7", "pump-7")
    body = json.dumps({"csr": (keys / "mqtt.csr").read_text(), "days": 9})
    command = ["curl", "-s", "--cacert", "ca.pem", "--cert", "pump-7.pem", "--key", "pump-7.key", "-d", body]
    command += ["-H", "Content-Type: application/json", f"https://localhost:{secured.port}/v1/device/certificates"]
    answer = json.loads(subprocess.run(command, cwd=keys, capture_output=True, timeout=20, check=True).stdout)
    (keys / "mqtt.pem").write_text(answer["certificate"])

    assert refused != 0
    wait_until(lambda: publish(secured, keys, "mqtt", "pump-7") == 0, 10)


def test_certificate_that_has_ended_opens_nothing(secured, keys, monkeypatch) -> None:
    authority = pki.make_authority("Old maker")
    (keys / "old-ca.pem").write_text(authority[0])
    made = secured.run("ca", "register", "old-maker", f"{keys}/old-ca.pem", "--json", check=True)

    def sign(name: str, subject: str) -> None:
        csr, key = pki.make_request(subject)
        (keys / f"{name}.pem").write_text(pki.sign(authority, csr, subject, 1))
        (keys / f"{name}.key").write_bytes(key)

    sign("old-proof", json.loads(made.stdout)[0]["challenge"])
    secured.run("ca", "prove", "old-maker", f"{keys}/old-proof.pem", check=True)
    sign("lasting", "lasting")
    now = pki._now()
    monkeypatch.setattr(pki, "_now", lambda: now - dt.timedelta(days=2))
    sign("ended", "ended")
    sign("lasting-ended", "lasting")

    wait_until(lambda: post(secured, keys, "lasting") == "202", 10)
    assert [post(secured, keys, name) for name in ("ended", "lasting-ended")] == ["400", "400"]


def test_server_of_another_name_is_not_trusted(secured, keys) -> None:
    where = f"localhost.example:{secured.port}"
    command = ["curl", "-s", "--cacert", f"{keys}/ca.pem", "--resolve", f"{where}:127.0.0.1", f"https://{where}/livez"]

    assert subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 60  # curl(1)


def request(keys: Path, name: str, subject: str) -> None:
    command = f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={subject}"
    openssl(keys, f"{command} -keyout {name}.key -out {name}.csr")


def openssl(keys: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=keys, capture_output=True, timeout=20, check=True)


def test_old_and_new_authority_are_trusted_at_both_doors_after_a_renewal(secured, keys) -> None:
    for name in ("c-old", "c-new"):
        secured.run("device", "add", name, check=True)
    secured.run("ca", "issue", "c-old", "--out", str(keys), check=True)
    only_old = (keys / "ca.pem").read_bytes()

    secured.run("ca", "renew", check=True)
    secured.run("ca", "issue", "c-new", "--out", str(keys), check=True)

    assert (keys / "ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2
    wait_until(lambda: publish(secured, keys, "c-new", "c-new") == 0, 20, what="the broker trusts the new authority")
    assert post(secured, keys, "c-new") == "202"
    (keys / "ca.pem").write_bytes(only_old)  # a device that has not heard of the new one
    assert publish(secured, keys, "c-old", "c-old") == 0
    assert post(secured, keys, "c-old") == "202"

    for name in ("c-old", "c-new"):
        secured.run("device", "disable", name, check=True)
    for name in ("c-old", "c-new"):
        wait_until(lambda name=name: publish(secured, keys, name, name) != 0, 10, what=f"{name} is revoked")
