"""`headwater up` with the real processes, where tests/e2e does not look: TLS, and wider addresses."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from compose import ports
from compose.__main__ import build_parser
from tests.compose.test_gateway import make_certificate
from tests.e2e.platform import is_ready
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
HEADWATER = [sys.executable, "-P", "-m", "compose"]


class Up(NamedTuple):
    data: Path
    cert: Path
    port: int
    mqtt: int
    mqtts: int

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [*HEADWATER, *words, "--data", str(self.data)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def status(self) -> Any:
        return json.loads(self.run("status", "--json").stdout or "{}")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = make_certificate(folder)
    made = Up(folder / "data", cert, ports.pick(), ports.pick(), ports.pick())
    argv = [*HEADWATER, "up", "--no-demo", "--data", str(made.data), "--bind", "0.0.0.0", "--port", str(made.port)]
    argv += ["--mqtt-port", str(made.mqtt), "--mqtts-port", str(made.mqtts)]
    argv += ["--tls-cert", str(cert), "--tls-key", str(key)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or is_ready(made.data, process.pid), 60)
        assert process.poll() is None, (folder / "log").read_text()
        yield made
    finally:
        process.terminate()
        process.wait(20)


def test_pages_come_by_https(up: Up) -> None:
    context = ssl.create_default_context(cafile=str(up.cert))
    connection = http.client.HTTPSConnection("127.0.0.1", up.port, context=context, timeout=10)
    connection.request("GET", "/livez")

    assert connection.getresponse().status == 200
    connection.close()


def test_old_tls_is_refused(up: Up) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(up.cert)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    connection = http.client.HTTPSConnection("127.0.0.1", up.port, context=context, timeout=10)

    with pytest.raises(ssl.SSLError):
        connection.request("GET", "/livez")
    connection.close()


def test_command_line_works_beside_tls(up: Up) -> None:
    added = up.run("device", "add", "d1", "--json")

    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["id"] == "d1"


def test_device_publishes_over_tls(up: Up) -> None:
    secret = json.loads(up.run("device", "add", "d2", "--json").stdout)["credential"]["secret"]
    argv = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(up.mqtts), "--cafile", str(up.cert), "-u", "d2", "-P", secret]
    argv += ["-i", "d2", "-q", "1", "-t", "devices/d2/telemetry", "-m", '{"a":1}']

    wait_until(lambda: subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode == 0)
    wait_until(lambda: up.status()["ledger"].get("stored", 0) >= 1)


def test_tls_commands_of_the_docs_work_as_printed(up: Up) -> None:
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    _, making, using = re.findall(r"```sh\n(.*?)```", page.partition("## TLS\n")[2].partition("\n## ")[0], re.DOTALL)
    secret = json.loads(up.run("device", "add", "d3", "--json").stdout)["credential"]["secret"]
    ours = using.replace("-p 8883", f"-p {up.mqtts}").replace(":8080/", f":{up.port}/").replace("d1", "d3")

    def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
        argv = ["bash", "-ec", text]
        return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    wait_until(lambda: run(f"SECRET={secret}\n{ours}", up.cert.parent).stdout == '{"accepted":1,"quarantined":[]}')

    made = up.cert.parent / "made"
    made.mkdir()
    openssl, _, start = making.partition("./run ")
    assert run(openssl, made).returncode == 0
    build_parser("up").parse_args(["up", *shlex.split(start, comments=True)])
    assert sorted(path.name for path in made.iterdir()) == ["cert.pem", "key.pem"]


def test_plain_http_is_told_to_come_by_https(up: Up) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=10)
    connection.request("POST", "/v1/telemetry", b"{}")
    answer = connection.getresponse()

    assert answer.status == 400
    assert json.loads(answer.read())["detail"].endswith("https://")
    connection.close()


def test_plain_listeners_stay_on_this_machine(up: Up) -> None:
    listening = Path("/proc/net/tcp").read_text()

    plain, secure = f":{up.mqtt:04X} ", f":{up.mqtts:04X} "
    sockets = [line.split()[1] for line in listening.splitlines() if " 0A " in line]
    assert [one for one in sockets if f"{one} ".endswith(plain)] == [f"0100007F:{up.mqtt:04X}"]
    assert [one for one in sockets if f"{one} ".endswith(secure)] == [f"00000000:{up.mqtts:04X}"]
