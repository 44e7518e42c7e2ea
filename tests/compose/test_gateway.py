"""The generated gateway configuration, with Debian's nginx before upstreams that tell what reached them."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from compose import gateway, ports
from compose.config import UpConfig
from compose.folder import Folder
from compose.processes import ON_DEMAND, find_program
from tests.support.waiting import wait_until

SERVICES = ("devices", "ingest-json", *ON_DEMAND, "dashboard")


class Echo(BaseHTTPRequestHandler):
    """Tells which service was asked for what."""

    protocol_version = "HTTP/1.1"
    service = ""
    held: ClassVar[set[str]] = set()  # paths of requests that wait for `release`
    release = threading.Event()

    def do_GET(self) -> None:
        if self.path.endswith("/hold"):
            self.held.add(self.path)
            self.release.wait(20)
        if self.headers.get("Upgrade"):
            self.send_response(101)
            self.send_header("Upgrade", self.headers["Upgrade"])
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.write(b"hello")
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length") or 0)
        seen = {"service": self.service, "path": self.path, "size": len(self.rfile.read(length))}
        content = json.dumps(seen | {"headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - http.server fixes the name

    def log_message(self, *words: Any) -> None:
        pass


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class Door:
    """A running gateway."""

    def __init__(self, port: int, upstreams: dict[str, ThreadingHTTPServer], process: subprocess.Popen[bytes]) -> None:
        self.port, self.upstreams, self.process = port, upstreams, process

    def send(self, raw: bytes) -> Reply:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(raw)
            received = bytearray()
            while chunk := connection.recv(65536):
                received += chunk
        head, _, content = bytes(received).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Reply(int(first.split()[1]) if first else 0, headers, content)

    def get(self, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> Reply:
        lines = [f"{method} {path} HTTP/1.1", "Host: door", "Connection: close", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def _write(folder: Folder, config: UpConfig, upstreams: dict[str, ThreadingHTTPServer]) -> tuple[Path, int]:
    chosen = {name: server.server_address[1] for name, server in upstreams.items()}
    chosen |= {"gateway": ports.pick(), "gateway-near": ports.pick()}
    return gateway.write(folder, config, chosen), chosen["gateway"]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with _running(Folder(tmp_path_factory.mktemp("gateway") / "data folder")) as started:
        yield started


@contextmanager
def _running(folder: Folder, **given: Any) -> Iterator[Door]:
    folder.prepare()
    upstreams = {}
    for name in SERVICES:
        handler = type(f"Echo-{name}", (Echo,), {"service": name})
        upstreams[name] = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        upstreams[name].daemon_threads = True
        threading.Thread(target=upstreams[name].serve_forever, args=(0.05,)).start()
    path, port = _write(folder, UpConfig(data=folder.root, **given), upstreams)
    argv = [find_program("nginx"), "-e", "stderr", "-p", f"{folder.gateway}/", "-c", str(path)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: not ports.is_free("127.0.0.1", port))
        yield Door(port, upstreams, process)
    finally:
        process.terminate()
        process.wait(10)
        for server in upstreams.values():
            server.shutdown()
            server.server_close()


ROUTES = {
    "/v1/telemetry": "ingest-json",
    "/v1/telemetry/json": "ingest-json",
    "/v1/quarantine?device=d1": "ingest-json",
    "/v1/quarantine/42": "ingest-json",
    "/v1/quarantine:replay": "ingest-json",
    "/v1/ledger": "ingest-json",
    "/v1/devices/d1/ledger": "ingest-json",
    "/api/v1/token/telemetry": "ingest-thingsboard",
    "/api/v1/token/attributes": "devices",
    "/api/v1/token/attributes/updates": "devices",
    "/api/v1/token/rpc": "devices",
    "/api/v1/token/rpc/7": "devices",
    "/api/v2/write?org=o&bucket=b": "ingest-line",
    "/write?db=b": "ingest-line",
    "/query": "ingest-line",
    "/ping?verbose=true": "ingest-line",
    "/health": "ingest-line",
    "/ready": "ingest-line",
    "/v1/telemetry/line": "ingest-line",
    "/v1/metrics": "ingest-otlp",
    "/api/v1/write": "ingest-prometheus",
    "/api/v1/write/telemetry": "ingest-thingsboard",
    "/v1/telemetry/otlp": "ingest-otlp",
    "/v1/telemetry/chirpstack?event=up": "ingest-lorawan",
    "/v1/telemetry/tts/down/ack": "ingest-lorawan",
    "/v1/telemetry/ttsx": "ingest-json",
    "/v1/devices": "devices",
    "/v1/devices/d1": "devices",
    "/v1/devices:import": "devices",
    "/v1/devices/d1/credentials": "devices",
    "/v1/devices/ledger": "devices",
    "/v1/device-types/t": "devices",
    "/v1/groups": "devices",
    "/v1/tokens": "devices",
    "/v1/operators/admin": "devices",
    "/v1/audit?limit=5": "devices",
    "/v1/query/latest": "dashboard",
    "/v1/export": "dashboard",
    "/v1/feed": "dashboard",
    "/openapi.json": "dashboard",
    "/docs": "dashboard",
    "/readyz": "dashboard",
    "/healthz": "dashboard",
    "/login": "dashboard",
    "/": "dashboard",
}


@pytest.mark.parametrize("path", ROUTES)
def test_path_reaches_its_service_as_it_was_written(door: Door, path: str) -> None:
    seen = door.get(path).body

    assert (seen["service"], seen["path"]) == (ROUTES[path], path)


HIDDEN = ("/internal", "/internal/batch", "/internal?x", "/metrics", "/metrics/", "/%69nternal/batch", "/metric%73")
ODD = ("//internal", "/v1/../internal/batch", "/v1//telemetry", "/./internal", "/x/%2e%2e/internal", "/v1/telemetry/..",
       "/v1%2f..%2finternal", "/%5cinternal", "/v1/\\internal", "/internal/../v1/telemetry")  # fmt: skip


@pytest.mark.parametrize("path", HIDDEN)
def test_inner_paths_are_hidden(door: Door, path: str) -> None:
    reply = door.get(path)

    assert (reply.status, reply.body["code"]) == (404, "not_found")
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ODD)
def test_paths_that_can_be_read_in_two_ways_are_refused(door: Door, path: str) -> None:
    reply = door.get(path)

    assert reply.status in (400, 404)
    assert reply.headers["content-type"] == "application/problem+json"


def test_answers_of_problems_are_no_paths(door: Door) -> None:
    assert door.get("/.problem/unavailable").status == 404
    assert door.get("/.problem//x").status == 404


def test_request_that_is_no_http_is_a_problem(door: Door) -> None:
    reply = door.send(b"GARBAGE\x00\r\n\r\n")

    assert reply.status == 400
    assert b"bad_request" in reply.content


def test_absolute_request_target_hides_nothing(door: Door) -> None:
    assert door.get("http://door/internal/batch").status == 404


def test_livez_is_answered_by_the_gateway(door: Door) -> None:
    reply = door.get("/livez")

    assert (reply.status, reply.body) == (200, {"service": "gateway", "live": True})
    assert reply.headers["server"] == "nginx"


def test_client_cannot_forge_its_address(door: Door) -> None:
    seen = door.get(
        "/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "Forwarded: for=1.2.3.4",
        "SCRIPT_NAME: /x", "PATH_INFO: /internal/batch",
    ).body["headers"]  # fmt: skip

    assert seen["X-Forwarded-For"] == "127.0.0.1"
    assert seen["X-Forwarded-Proto"] == "http"
    assert seen["Host"] == "door"
    assert not {"X-Forwarded-Host", "Forwarded", "SCRIPT_NAME", "PATH_INFO"} & set(seen)


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/v1/telemetry", 1024 * 1024, 200),
        ("/v1/telemetry", 1024 * 1024 + 1, 413),
        ("/v1/devices:import", 32 * 1024 * 1024, 200),
        ("/v1/devices:import", 32 * 1024 * 1024 + 1, 413),
        ("/", 1024 * 1024 + 1, 413),
    ],
)
def test_bodies_are_limited(door: Door, path: str, size: int, status: int) -> None:
    reply = door.get(path, method="POST", body=b"x" * size)

    assert reply.status == status
    if status == 413:
        assert (reply.body["code"], reply.body["status"]) == ("too_large", 413)


@pytest.mark.parametrize("path", ["/v1/telemetry", "/api/v2/write", "/write"])
def test_body_in_chunks_without_a_length_arrives_whole(door: Door, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()

    reply = door.send(head + b"5\r\nm a=1\r\n6\r\n\nm a=2\r\n0\r\n\r\n")
    larger = door.send(head + b"100001\r\n" + b"x" * 0x100001 + b"\r\n0\r\n\r\n")

    assert (reply.status, reply.body["size"]) == (200, 11)
    assert larger.status == 413


def test_clients_of_influxdb_are_refused_in_its_words(door: Door) -> None:
    large = b"x" * (1024 * 1024 + 1)
    new, old = (door.get(path, method="POST", body=large) for path in ("/api/v2/write", "/write?db=b"))
    odd = door.send(b"POST /write HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n")

    assert (new.status, new.body["code"], new.headers["x-platform-error-code"]) == (413, *["request too large"] * 2)
    assert new.headers["content-type"] == "application/json"
    assert (old.status, old.body) == (413, {"error": old.headers["x-influxdb-error"]})
    assert (odd.status, list(odd.body)) == (400, ["error"])


def test_prometheus_is_told_by_the_gateway_in_its_words(door: Door) -> None:
    large = door.get("/api/v1/write", method="POST", body=b"#" * (1024 * 1024 + 1))

    assert (large.status, large.body["status"], large.body["errorType"]) == (413, "error", "too_large")


def test_opentelemetry_is_told_by_the_gateway_in_its_words(door: Door) -> None:
    large = door.get("/v1/metrics", method="POST", body=b"#" * (1024 * 1024 + 1))

    assert (large.status, large.body["code"], list(large.body)) == (413, 3, ["code", "message"])


def test_influxdb_service_that_is_away_is_told_in_its_words(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    with _running(folder) as door:
        door.upstreams["ingest-line"].shutdown()
        door.upstreams["ingest-line"].server_close()
        new, old = (door.get(path, method="POST", body=b"m a=1") for path in ("/api/v2/write", "/write"))
        other = door.get("/v1/telemetry", method="POST", body=b"{}")

    assert (new.status, new.body["code"], new.headers["retry-after"]) == (503, "unavailable", "1")
    assert (old.status, list(old.body), old.headers["retry-after"]) == (503, ["error"], "1")
    assert other.status == 200


def test_long_request_line_and_headers_are_problems(door: Door) -> None:
    line, header = door.get("/" + "x" * 9000), door.get("/", "X-Long: " + "x" * 9000)

    assert (line.status, line.body["code"]) == (414, "uri_too_long")
    assert (header.status, header.body["code"]) == (431, "header_too_large")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nxx",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    ],
)
def test_ambiguous_requests_are_refused(door: Door, raw: bytes) -> None:
    reply = door.send(raw)

    assert reply.status in (400, 501)
    assert reply.content.count(b"HTTP/1.1") == 0


@pytest.mark.parametrize("host", ['"><script>', "a b", "a@b", "a/b", "a:123456", "a:b", "a,b", "[::1", "a\\b"])
def test_host_that_is_none_is_refused(door: Door, host: str) -> None:
    reply = door.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert (reply.status, reply.body["code"]) == (400, "bad_request")


@pytest.mark.parametrize("host", ["door", "a-b.example:8080", "head_water", "127.0.0.1:80", "[::1]:8080"])
def test_host_goes_on_as_it_was_asked(door: Door, host: str) -> None:
    reply = door.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert reply.body["headers"]["Host"] == host


def test_host_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    hosts = ("iot.example.org", "IOT.example.org:8080", "192.0.2.7", "localhost:80", "127.0.0.1", "[::1]:8080",
             "evil.example", "iotXexample.org", "iot.example.org.evil.example", "evil.example:80 iot.example.org", "")  # fmt: skip

    with _running(Folder(tmp_path / "data"), hosts="iot.example.org, 192.0.2.7") as door:
        replies = [door.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()) for host in hosts]

    assert [reply.status for reply in replies] == [200] * 6 + [400] * 5


def test_websocket_is_passed_on_and_h2c_is_not(door: Door) -> None:
    upgrade = door.get("/v1/feed", "Upgrade: websocket")
    tunnel = door.get("/v1/feed", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")

    assert (upgrade.status, upgrade.content) == (101, b"hello")
    assert tunnel.status == 200
    assert "Upgrade" not in tunnel.body["headers"]


def test_dead_service_is_a_problem_to_try_again(door: Door, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    folder.prepare()
    dead = {name: ports.pick() for name in (*SERVICES, "gateway", "gateway-near")}
    path = gateway.write(folder, UpConfig(data=folder.root), dead)
    argv = [find_program("nginx"), "-e", "stderr", "-p", f"{folder.gateway}/", "-c", str(path)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: not ports.is_free("127.0.0.1", dead["gateway"]))
        reply = Door(dead["gateway"], {}, process).get("/v1/telemetry", method="POST", body=b"{}")
    finally:
        process.terminate()
        process.wait(10)

    assert (reply.status, reply.body["code"], reply.headers["retry-after"]) == (503, "unavailable", "1")
    assert reply.headers["content-type"] == "application/problem+json"


def test_slow_clients_cost_no_thread_of_a_service(door: Door) -> None:
    slow = [socket.create_connection(("127.0.0.1", door.port), timeout=10) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(b"POST /v1/telemetry HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
        before = threading.active_count()

        assert door.get("/v1/telemetry").status == 200
        assert before < 100
    finally:
        for connection in slow:
            connection.close()


def test_gateway_writes_nothing_outside_its_folder(door: Door) -> None:
    opened = [str(path.readlink()) for path in Path(f"/proc/{door.process.pid}/fd").iterdir()]

    assert not [path for path in opened if path.startswith(("/var", "/usr", "/etc"))]


@pytest.mark.parametrize(
    "path", ["/write?db=b&u=d1&p=%s&precision=s", "/write?p=%s", "/api/v1/d1.%s/telemetry", "/ping?%%70=%s"]
)
def test_secrets_of_devices_in_a_request_are_not_logged(path: str) -> None:
    request = path % "SeCreT-_1"
    line = f'[error] client intended to send too large body, request: "POST {request} HTTP/1.1", upstream: "http://127.0.0.1:1{request}"'

    hidden = gateway.hide_secrets(line)

    assert "SeCreT" not in hidden
    assert hidden.startswith("[error] client intended") and hidden.endswith('"')  # noqa: PT018


@pytest.mark.parametrize("tls", [False, True])
def test_generated_configuration_is_legal(tmp_path: Path, tls: bool) -> None:
    folder = Folder(tmp_path / "data")
    folder.prepare()
    config = UpConfig(data=folder.root)
    if tls:
        cert, key = make_certificate(tmp_path)
        config = UpConfig(data=folder.root, tls_cert=cert, tls_key=key, bind="0.0.0.0")
    chosen = {name: ports.pick() for name in (*SERVICES, "gateway", "gateway-near")}
    path = gateway.write(folder, config, chosen)

    argv = [find_program("nginx"), "-t", "-e", "stderr", "-p", f"{folder.gateway}/", "-c", str(path)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert "warn" not in result.stderr


def make_certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    argv += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (
            b"POST /v1/telemetry HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n",
            400,
        ),
        (b"GET /livez HTTP/9.9\r\nHost: a\r\n\r\n", 400),
        (b"GET /.problem/unavailable HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
    ],
)
def test_what_nginx_itself_refuses_is_a_problem_document_too(door: Door, request_: bytes, status: int) -> None:
    reply = door.send(request_)

    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")


def test_telemetry_beyond_what_can_wait_is_told_to_come_again_and_control_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "IN_FLIGHT", 3)
    Echo.release.clear()
    Echo.held.clear()
    folder = Folder(tmp_path / "data")
    with _running(folder) as door, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(door.get, f"/v1/telemetry/{number}/hold", method="POST", body=b"{}") for number in range(3)]
        wait_until(lambda: len(Echo.held) == 3, 5)
        try:
            refused = [door.get("/v1/telemetry", method="POST", body=b"{}") for _ in range(4)]
            others = [door.get(path).status for path in ("/v1/ledger", "/v1/quarantine", "/v1/devices", "/")]
        finally:
            Echo.release.set()
        answered = [each.result().status for each in held]
        again = door.get("/v1/telemetry", method="POST", body=b"{}").status
        wait_until(lambda: gateway.shed_file(folder).stat().st_size, 5, what="the note of the gateway")
        noted = gateway.shed_file(folder).read_text()

    assert [(reply.status, reply.body["code"], reply.headers["retry-after"]) for reply in refused] == [
        (503, "unavailable", "1")
    ] * 4
    assert others == [200] * 4
    assert (answered, again) == ([200] * 3, 200)
    assert noted == "1\n" * 4


def test_one_device_that_sends_without_measure_leaves_room_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "OF_ONE_DEVICE", 2)
    Echo.release.clear()
    Echo.held.clear()
    noisy, calm = "Authorization: Bearer noisy.s", "Authorization: Bearer calm.s"
    with _running(Folder(tmp_path / "data")) as door, ThreadPoolExecutor(2) as pool:
        held = [pool.submit(door.get, f"/v1/telemetry/{number}/hold", noisy, method="POST") for number in range(2)]
        wait_until(lambda: len(Echo.held) == 2, 5)
        try:
            refused = door.get("/v1/telemetry", noisy, method="POST")
            new, old = (door.get(path, noisy, method="POST") for path in ("/api/v2/write", "/write"))
            others = door.get("/v1/telemetry", calm, method="POST"), door.get("/api/v1/calm.s/telemetry", method="POST")
        finally:
            Echo.release.set()
        answered = [each.result().status for each in held]

    assert (refused.status, refused.body["code"], refused.headers["retry-after"]) == (429, "rate_limited", "1")
    assert (new.status, new.body["code"], new.headers["retry-after"]) == (429, "too many requests", "1")
    assert (old.status, list(old.body), old.headers["retry-after"]) == (503, ["error"], "1")
    assert [reply.status for reply in others] == [200, 200]
    assert answered == [200, 200]
