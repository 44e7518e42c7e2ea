"""The loop worker under a real gunicorn: what runs where, what odd requests get, how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
APP = """
import json, os, threading, time
from pathlib import Path
from chassis import loop_worker, parking
loop_worker.READ_S = float(os.environ.get("READ_S", loop_worker.READ_S))
MARKS = Path(os.environ["MARKS"])
PIPE = os.pipe()
WAITING, LONG = [], 20_000_000  # more than the kernel keeps of what is sent
class App:
    extensions = {parking.QUICK: ("/quick",)}
    def __call__(self, environ, start):
        path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
        if path == "/quick/slow":
            parking.aside(self.linger)
        elif path == "/quick/together":
            self.meet(int(body))
        elif path == "/quick/late":
            told = parking.waiter().wait(0.1)
            body = str(told).encode()
        elif path == "/quick/reads":
            parking.until_ready(PIPE[0], 1)
            body = os.read(PIPE[0], 100)
        elif path == "/quick/writes":
            os.write(PIPE[1], body)
        elif path == "/quick/long":
            start("200 OK", [("Content-Length", str(LONG))])
            return [b"a" * LONG]
        elif path == "/quick/broken":
            raise ValueError("broken")
        told = {"on_loop": parking.loop() is not None, "thread": threading.current_thread().name, "size": len(body),
                "method": environ["REQUEST_METHOD"], "body": body[:20].decode("latin-1")}
        answer = json.dumps(told).encode()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
        return [answer]
    def linger(self):
        (MARKS / "begun").touch()
        while not (MARKS / "go").exists():
            time.sleep(0.01)
    def meet(self, count):
        waiter = parking.waiter()
        WAITING.append(waiter)
        if len(WAITING) == count:
            for each in WAITING: each.set()
        assert waiter.wait(10)
def create_app():
    return App()
"""
Connect = Callable[[], "Client"]


class Client:
    """A connection on which bytes are sent as they are."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._rest = b""

    def send(self, content: bytes) -> Client:
        self.socket.sendall(content)
        return self

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = self._read_to(lambda: self._rest.partition(b"\r\n\r\n")[1])[0].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        size = int(headers.get("content-length", 0))
        while len(self._rest) < size:
            self._receive()
        body, self._rest = self._rest[:size], self._rest[size:]
        return int(head[0].split()[1]), headers, body

    def told(self) -> dict[str, Any]:
        status, _, body = self.answer()
        assert status == 200, body
        told: dict[str, Any] = json.loads(body)
        return told

    def is_closed(self) -> bool:
        return self._rest == b"" and self.socket.recv(100) == b""

    def _read_to(self, is_there: Callable[[], object]) -> tuple[bytes, bytes]:
        while not is_there():
            self._receive()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head, self._rest

    def _receive(self) -> None:
        chunk = self.socket.recv(65_536)
        assert chunk, f"closed after {self._rest!r}"
        self._rest += chunk


class Server:
    """A gunicorn with one loop worker of two threads."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        (folder / "tiny.py").write_text(APP)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        argv = [sys.executable, "-m", "gunicorn", "-k", "chassis.loop_worker.LoopWorker", "--threads", "2"]
        argv += ["-b", f"127.0.0.1:{self.port}", "--no-control-socket", "--keep-alive", "60", *arguments]
        env = os.environ | {"MARKS": str(folder), "PYTHONPATH": f"{folder}:{ROOT}"}
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*argv, "tiny:create_app()"], cwd=folder, env=env, stdout=log, stderr=log)
        wait_until(lambda: "Booting worker" in self.log.read_text(), what=f"start; see {self.log}")

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def wait_for_the_slow(self) -> None:
        wait_until((self.folder / "begun").exists)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*arguments: str) -> Server:
        started.append(Server(tmp_path, *arguments))
        return started[-1]

    yield start
    for server in started:
        server.let_go()
        server.process.kill()
        server.process.wait(10)
        for pid in children(server.process.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    opened: list[Client] = []

    def open_one() -> Client:
        opened.append(Client(server.port))
        return opened[-1]

    yield open_one
    for client in opened:
        client.socket.close()


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(path: str, *parts: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def test_short_post_runs_on_the_loop_again_and_again(connect: Connect) -> None:
    client = connect()

    told = [client.send(post("/quick", b"a" * size)).told() for size in (1, 16_384, 0)]

    assert [(each["on_loop"], each["size"]) for each in told] == [(True, 1), (True, 16_384), (True, 0)]
    assert {each["thread"] for each in told} == {"MainThread"}


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /quick HTTP/1.1\r\nHost: test\r\n\r\n",
        post("/other", b"a"),
        post("/quick", b"a" * 16_385),
        post("/quick", b"a" * 100_000),
        post("/quick", b"a", "Content-Encoding: gzip"),
        chunked("/quick", b"some", b" chunks"),
        b"OPTIONS /quick HTTP/1.1\r\nHost: test\r\n\r\n",
    ],
    ids=["get", "other path", "long", "longer than a read", "gzip", "chunked", "options"],
)
def test_everything_else_runs_in_a_thread_and_the_connection_lives_on(connect: Connect, request_: bytes) -> None:
    client = connect()

    assert not client.send(request_).told()["on_loop"]
    assert client.send(post("/quick", b"a")).told()["on_loop"]
    assert not client.send(request_).told()["on_loop"]


def test_head_request_has_no_body(connect: Connect) -> None:
    client = connect().send(b"HEAD /quick HTTP/1.1\r\nHost: test\r\n\r\n")
    head = client._read_to(lambda: client._rest.partition(b"\r\n\r\n")[1])[0]

    assert head.startswith(b"HTTP/1.1 200 ")
    assert client.send(post("/quick", b"a")).told()["on_loop"]


@pytest.mark.parametrize("at", [1, 30, 61, -1])
def test_request_in_two_parts_is_put_together(connect: Connect, at: int) -> None:
    whole, client, other = post("/quick", b"body"), connect(), connect()

    client.send(whole[:at])
    assert other.send(post("/quick", b"other")).told()["on_loop"]  # the first part has been read by now

    assert client.send(whole[at:]).told()["body"] == "body"


def test_pipelined_requests_are_answered_in_order(connect: Connect) -> None:
    client = connect().send(b"".join(post("/quick", b"%d" % number) for number in range(5)))

    assert [client.told()["body"] for _ in range(5)] == list("01234")


def test_request_that_waits_for_a_descriptor_lets_others_run(connect: Connect) -> None:
    reader, writer = connect(), connect()

    for _ in range(2):
        reader.send(post("/quick/reads"))
        assert writer.send(post("/quick/writes", b"written")).told()["on_loop"]
        told = reader.told()
        assert (told["on_loop"], told["body"]) == (True, "written")


def test_request_sent_behind_one_that_waits_comes_next(server: Server, connect: Connect) -> None:
    client = connect().send(post("/quick/slow"))
    server.wait_for_the_slow()
    client.send(post("/quick", b"behind"))
    assert connect().send(post("/quick", b"other")).told()["body"] == "other"

    server.let_go()

    assert [client.told()["body"], client.told()["body"]] == ["", "behind"]


def test_expected_100_is_given_and_the_body_taken(connect: Connect) -> None:
    head, body = post("/quick", b"body", "Expect: 100-continue").split(b"\r\n\r\n")
    client = connect().send(head + b"\r\n\r\n")

    assert client.answer()[0] == 100
    assert client.send(body).told()["body"] == "body"


@pytest.mark.parametrize(
    "begun", [b"POST /quick HTTP/1.1\r\nX-", post("/quick", b"a" * 100)[:-50], post("/other", b"a")[:-1]]
)
def test_slow_senders_keep_nobody_waiting(connect: Connect, begun: bytes) -> None:
    slow = [connect().send(begun) for _ in range(50)]  # 25 times as many as there are threads

    assert [connect().send(post("/quick", b"%d" % number)).told()["body"] for number in range(5)] == list("01234")
    assert [connect().send(post("/other", b"%d" % number)).told()["body"] for number in range(5)] == list("01234")
    assert all(client.send(b"a").socket.fileno() > 0 for client in slow)


def test_request_that_comes_byte_by_byte_is_answered(connect: Connect) -> None:
    for request_ in (post("/quick", b"body"), post("/other", b"body")):
        client = connect()
        for number in range(len(request_)):
            client.send(request_[number : number + 1])
        assert client.told()["body"] == "body"
        assert client.send(post("/quick", b"next")).told()["body"] == "next"


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /other HTTP/1.1\r\nX-",
        post("/other", b"a" * 99_999)[:-1],
        chunked("/other", b"a")[:-5],
        post("/other", b"whole") + b"POST /other HTTP/1.1\r\nX-",
    ],
    ids=["head", "long body", "chunked", "behind another"],
)
def test_request_that_does_not_come_in_time_is_ended(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setenv("READ_S", "0.2")
    server = serve()
    slow = [Client(server.port).send(begun) for _ in range(5)]  # more than there are threads

    other = Client(server.port).send(post("/other", b"a"))
    assert other.told()["body"] == "a"
    other.socket.close()
    for client in slow:
        _hear_the_end(client)


def _hear_the_end(client: Client) -> None:
    """Wait until it is closed, or reset where what was sent last was never read. Raises TimeoutError."""
    with client.socket as heard, suppress(ConnectionResetError):
        while heard.recv(65_536):
            pass


def test_more_requests_wait_together_than_there_are_threads(connect: Connect) -> None:
    clients = [connect().send(post("/quick/together", b"50")) for _ in range(50)]

    assert {client.told()["thread"] for client in clients} == {"MainThread"}


def test_more_requests_than_a_turn_takes_are_all_answered(connect: Connect) -> None:
    clients = [connect() for _ in range(100)]

    for number, client in enumerate(clients):
        client.send(post("/quick", b"%d" % number, *(["Connection: close"] if number % 3 else [])))

    assert [client.told()["body"] for client in clients] == [str(number) for number in range(100)]
    assert all(client.is_closed() for number, client in enumerate(clients) if number % 3)


def test_wait_ends_at_its_time(connect: Connect) -> None:
    assert connect().send(post("/quick/late")).told()["body"] == "False"


def test_app_that_fails_costs_its_request_only(connect: Connect) -> None:
    status, _, body = connect().send(post("/quick/broken")).answer()

    assert (status, json.loads(body)["code"]) == (500, "internal")
    assert connect().send(post("/quick")).told()["on_loop"]


def test_long_answer_is_sent_whole_while_others_are_answered(connect: Connect) -> None:
    client = connect().send(post("/quick/long"))

    assert connect().send(post("/quick", b"other")).told()["body"] == "other"
    assert len(client.answer()[2]) == 20_000_000
    assert client.send(post("/quick", b"behind")).told()["body"] == "behind"


def test_client_that_leaves_while_it_waits_is_forgotten(server: Server, connect: Connect) -> None:
    leaving = connect().send(post("/quick/slow"))
    server.wait_for_the_slow()
    leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    leaving.socket.close()
    server.let_go()

    assert connect().send(post("/quick")).told()["on_loop"]
    assert server.process.poll() is None
    assert "Traceback" not in server.log.read_text()


SMUGGLED = [
    ("length and chunks", b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("two lengths", b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody1", 400),
    ("length with a sign", b"Content-Length: +4\r\n\r\nbody", 400),
    ("length of words", b"Content-Length: four\r\n\r\nbody", 400),
    ("unknown coding", b"Transfer-Encoding: cow\r\n\r\nbody", 501),
    ("chunked not last", b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    ("chunk size of words", b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nbody\r\n0\r\n\r\n", 400),
    ("negative chunk size", b"Transfer-Encoding: chunked\r\n\r\n-4\r\nbody\r\n0\r\n\r\n", 400),
    ("chunk without its end", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbodyX0\r\n\r\n", 400),
    ("space before the colon", b"Content-Length : 4\r\n\r\nbody", 400),
    ("folded line", b"X-A: 1\r\n two\r\nContent-Length: 4\r\n\r\nbody", 400),
    ("bare line feed", b"X-A: 1\nContent-Length: 4\r\n\r\nbody", 400),
    ("zero byte", b"X-A: \0\r\nContent-Length: 4\r\n\r\nbody", 400),
]


@pytest.mark.parametrize(("rest", "status"), [case[1:] for case in SMUGGLED], ids=[case[0] for case in SMUGGLED])
def test_request_of_two_readings_is_refused_and_the_connection_closed(
    connect: Connect, rest: bytes, status: int
) -> None:
    client = connect().send(b"POST /quick HTTP/1.1\r\nHost: test\r\n" + rest + post("/quick", b"smuggled"))

    answered, headers, body = client.answer()

    assert (answered, headers["connection"]) == (status, "close")
    assert (headers["content-type"], json.loads(body)["code"]) == ("application/problem+json", "bad_request")
    assert client.is_closed()


@pytest.mark.parametrize("lane", ["/quick", "/other"])
def test_limits_of_the_head_are_told_as_problems(connect: Connect, lane: str) -> None:
    answers = [
        connect().send(request).answer()
        for request in (
            post(lane, b"", *[f"X-{number}: 1" for number in range(120)]),
            post(lane, b"", f"X-Long: {'a' * 9_000}"),
            post(f"{lane}?{'a' * 9_000}"),
        )
    ]

    told = [(status, json.loads(body)["code"]) for status, _, body in answers]
    assert told == [(431, "header_too_large"), (431, "header_too_large"), (414, "uri_too_long")]


def test_sigterm_lets_what_waits_be_answered(server: Server, connect: Connect) -> None:
    idle, waiting = connect(), connect().send(post("/quick/slow"))
    assert idle.send(post("/quick")).told()["on_loop"]
    server.wait_for_the_slow()

    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Handling signal: term" in server.log.read_text())
    server.let_go()

    status, headers, _ = waiting.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert idle.is_closed()
    assert server.process.wait(10) == 0


def test_idle_connection_is_closed_and_a_busy_one_not(serve: Callable[..., Server]) -> None:
    server = serve("--keep-alive", "1")
    idle, waiting = Client(server.port), Client(server.port).send(post("/quick/slow"))

    assert idle.is_closed()
    server.let_go()
    assert waiting.told()["on_loop"]
    idle.socket.close()
    waiting.socket.close()
