"""Fakes for the simulator's tests: books that only remember, a broker as a process, a platform that errs on purpose."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from simulators.outbox import Outgoing
from tests.support import mosquitto
from wire import clock

DEADLINE_S = 10.0


async def until(is_true: Callable[[], Any], deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not is_true():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A server on this loop; gives its port, and leaves no connection behind."""
    tasks: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def message(seq: int, text: str = "") -> Outgoing:
    return Outgoing(0, seq, 1_700_000_000_000 + seq, (text or f'{{"n":{seq}}}').encode())


class Books:
    """A sink that only remembers."""

    def __init__(self) -> None:
        self.sent_seqs: list[int] = []
        self.acked_seqs: list[int] = []
        self.quarantined_seqs: list[int] = []
        self.refused_seqs: list[int] = []
        self.errors: Counter[str] = Counter()

    def sent(self, outgoing: Outgoing) -> None:
        self.sent_seqs.append(outgoing.seq)

    def acked(self, outgoing: Outgoing, *, is_quarantined: bool = False) -> None:
        self.acked_seqs.append(outgoing.seq)
        if is_quarantined:
            self.quarantined_seqs.append(outgoing.seq)

    def refused(self, outgoing: Outgoing) -> None:
        self.refused_seqs.append(outgoing.seq)

    def error(self, name: str) -> None:
        self.errors[name] += 1


class Mosquitto(mosquitto.Mosquitto):
    """A real broker that keeps nothing on disk."""

    def __init__(self, folder: Path, *lines: str) -> None:
        super().__init__(
            folder, "persistence false", "max_queued_messages 100000", *(lines or ("allow_anonymous true",))
        )


class FakePlatform:
    """The platform's HTTP face over two dicts, with faults that a test asks for. It shares no code with the product."""

    def __init__(self) -> None:
        self.types: dict[str, Any] = {}
        self.devices: dict[str, str] = {}
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.quarantine: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.seen: set[tuple[str, str, int]] = set()
        self.sheet: Counter[str] = Counter()
        self.answers: list[tuple[int, dict[str, str]]] = []  # given to the next telemetry requests instead of working
        self.lose: set[int] = set()  # numbers of accepted readings that are not stored, from 1
        self.double: set[int] = set()  # ... that are stored a second time, 7 ms later
        self.page = 10_000
        self.pending_polls = 0  # so many reads of the ledger show something pending
        self.connections = 0
        self.posts = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"platform": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join()

    def handle(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], Any]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        with self._lock:
            if path == "/v1/telemetry":
                return self._telemetry(headers, body)
            if headers.get("Authorization") != "Bearer operator":
                return 401, {}, {"code": "unauthorized", "detail": "no token"}
            if method == "POST":
                return self._change(path, body)
            return self._read(path, query)

    def _change(self, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        if path == "/v1/device-types":
            wanted = json.loads(body)
            self.types[wanted["name"]] = wanted
            return 201, {}, wanted
        if path == "/v1/devices:import":
            ids = [line.split(",")[0] for line in body.decode().splitlines()[1:]]
            fresh = [device_id for device_id in ids if device_id not in self.devices]
            self.devices |= dict.fromkeys(fresh, "s1")
            return 200, {}, {"created": len(fresh), "failed": [], "credentials": [self._issued(each) for each in fresh]}
        device_id = path.split("/")[3]
        self.devices[device_id] = f"s{int(self.devices[device_id][1:]) + 1}"
        return 201, {}, self._issued(device_id)

    def _issued(self, device_id: str) -> dict[str, str]:
        secret = self.devices[device_id]
        return {"device": device_id, "username": device_id, "secret": secret, "bearer": f"{device_id}.{secret}"}

    def _read(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], Any]:
        device_id = query.get("device", [""])[0]
        if path.startswith("/v1/device-types/"):
            found = self.types.get(path.rpartition("/")[2])
            return (200, {}, found) if found else (404, {}, {"code": "not_found", "detail": "no such type"})
        if path == "/v1/ledger":
            self.pending_polls -= 1
            return 200, {}, {"accepted": 0, "stored": -1, "duplicates": 0, "pending": max(0, self.pending_polls)}
        if path == "/v1/query/latest":
            return 200, {}, {"points": self.rows[device_id][-1:]}
        if path == "/v1/quarantine":
            return self._paged(self.quarantine[device_id], query, "items")
        start, end = int(query["start"][0]), int(query["end"][0])
        rows = [row for row in self.rows[device_id] if start <= clock.parse_time(row["time"]) < end]
        return self._paged(rows, query, "points")

    def _paged(self, rows: list[Any], query: dict[str, list[str]], member: str) -> tuple[int, dict[str, str], Any]:
        first = int(query.get("cursor", ["0"])[0])
        following = first + self.page
        return 200, {}, {member: rows[first:following], "next": str(following) if following < len(rows) else None}

    def _telemetry(self, headers: Any, body: bytes) -> tuple[int, dict[str, str], Any]:
        self.posts += 1
        if self.answers:
            status, extra = self.answers.pop(0)
            return status, extra, {"code": "told", "detail": "as the test said"}
        device_id, _, secret = headers.get("Authorization", "").removeprefix("Bearer ").rpartition(".")
        if self.devices.get(device_id) != secret:
            return 401, {}, {"code": "unauthorized", "detail": "wrong credential"}
        lines = body.split(b"\n") if "ndjson" in headers["Content-Type"] else [body]
        bad = [index for index, line in enumerate(lines) if not self._accept(device_id, line)]
        listed = [{"index": index, "code": "bad_syntax", "detail": "-"} for index in bad]
        if len(bad) == len(lines):
            return 400, {}, {"code": "bad_syntax", "detail": "-", "quarantined": listed}
        return 202, {}, {"accepted": len(lines) - len(bad), "quarantined": listed}

    def _accept(self, device_id: str, line: bytes) -> bool:
        try:
            reading = json.loads(line)
            key = (device_id, reading["boot_id"], reading["seq"])
        except (ValueError, TypeError):
            self.quarantine[device_id].append({"time": clock.format_ns(clock.now_ns())})
            return False
        if key in self.seen:
            return True
        self.seen.add(key)
        self.sheet["accepted"] += 1
        if self.sheet["accepted"] not in self.lose:
            self._store(device_id, reading["ts"], reading["values"])
        if self.sheet["accepted"] in self.double:
            self._store(device_id, reading["ts"] + 7, reading["values"])
        return True

    def _store(self, device_id: str, ts: int, values: dict[str, Any]) -> None:
        time_text = clock.format_ns(ts * 1_000_000)
        row = {"device": device_id, "measurement": "telemetry", "time": time_text, "tags": {}, "fields": values}
        self.rows[device_id].append(row)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for request in list(self._open):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection reset by the other side is no fault here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    platform: ClassVar[FakePlatform]

    def setup(self) -> None:
        super().setup()
        self.platform.connections += 1

    def do_POST(self) -> None:
        self._answer("POST")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, answer = self.platform.handle(method, self.path, self.headers, body)
        if status == 0:  # the connection breaks instead
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        text = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(text))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Silence."""
