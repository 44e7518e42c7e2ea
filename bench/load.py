"""Lean load generators for pipeline.py: devices on MQTT at an offered rate, devices on HTTP as fast as answered.

Each runs as one process beside what it measures and reports its own CPU time; per message it costs a tenth of the
simulator, which checks every reading and so would be what is measured.
"""

from __future__ import annotations

import http.client
import itertools
import json
import multiprocessing
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TICK_S = 0.002
UNANSWERED = 100  # publishes of one device that may wait for their PUBACK
DRAIN_S = 30.0
READING = (
    b'{"ts":%d,"boot_id":"%s","seq":%d,"values":{"temperature":%d.512,"humidity":48.25,"pressure":1013.25,'
    b'"battery":3.712,"rssi":-71}}'
)


@dataclass
class Result:
    """What a generator did."""

    sent: int = 0
    acked: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    ack_ms: list[float] = field(default_factory=list)
    of_kind: dict[str, list[float]] = field(default_factory=dict)  # the same by kind of request

    def percentile(self, share: float) -> float:
        ordered = sorted(self.ack_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(frozen=True)
class Login:
    device: str
    secret: str


class Numbers:
    """Readings of one device: times and numbers that never repeat."""

    def __init__(self, boot: str) -> None:
        self._boot = boot.encode()
        self._seq = 0
        self._time_us = 0

    def reading(self) -> bytes:
        self._seq += 1
        self._time_us = max(self._time_us + 1, time.time_ns() // 1000)
        return READING % (self._time_us, self._boot, self._seq, self._seq % 40)


def run_apart(generate: Callable[..., Result], *arguments: Any) -> Result:
    """Run a generator in a process of its own."""
    ours, theirs = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        began_s, cpu_s = time.monotonic(), time.process_time()
        result = generate(*arguments)
        result.seconds = result.seconds or time.monotonic() - began_s
        result.cpu_s = time.process_time() - cpu_s
        theirs.send(result)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    result: Result = ours.recv()
    process.join()
    return result


class Caller:
    """One connection that is kept, with a token; it costs a tenth of urllib3."""

    def __init__(self, address: tuple[str, int], token: str) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Give the body of a good answer; any other ends the run."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:200]!r}")
        return text


# -- MQTT ----------------------------------------------------------------------------------------------------------


class _Publisher:
    def __init__(self, address: tuple[str, int], login: Login, boot: str) -> None:
        self._topic = b"devices/%s/telemetry" % login.device.encode()
        self._numbers = Numbers(boot)
        self._mid = 0
        self.sent_at: deque[float] = deque()
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        texts = (login.device, login.device, login.secret)
        body = b"\x00\x04MQTT\x04\xc2\x00\x3c" + b"".join(
            len(text).to_bytes(2, "big") + text.encode() for text in texts
        )
        self.socket.sendall(b"\x10" + _length(len(body)) + body)
        answer = self.socket.recv(4)
        if answer[3:] != b"\x00":
            raise ConnectionRefusedError(f"{login.device}: CONNACK {answer.hex()}")

    def publish(self, now_s: float) -> None:
        self._mid = self._mid % 65_535 + 1
        payload = self._numbers.reading()
        size = 4 + len(self._topic) + len(payload)
        head = b"\x32" + _length(size) + len(self._topic).to_bytes(2, "big") + self._topic
        self.socket.sendall(head + self._mid.to_bytes(2, "big") + payload)
        self.sent_at.append(now_s)

    def read(self, result: Result) -> None:
        count = len(self.socket.recv(65_536)) // 4  # a PUBACK has four bytes and is written whole
        now_s = time.monotonic()
        result.acked += count
        result.ack_ms += [1e3 * (now_s - self.sent_at.popleft()) for _ in range(count)]


def publish(address: tuple[str, int], logins: list[Login], rate: float, seconds: float, boot: str) -> Result:
    """Publish at `rate` in all, one message a write, devices in turn; one that is not answered is passed over."""
    result = Result()
    publishers = [_Publisher(address, login, boot) for login in logins]
    selector = selectors.DefaultSelector()
    for each in publishers:
        selector.register(each.socket, selectors.EVENT_READ, each)
    turns = itertools.cycle(publishers)
    began_s = now_s = time.monotonic()
    while (now_s := time.monotonic()) < began_s + seconds:
        due = int(rate * (now_s - began_s)) - result.sent
        for each in itertools.islice(turns, max(0, min(due, 2 * len(publishers)))):
            if len(each.sent_at) < UNANSWERED:
                each.publish(now_s)
                result.sent += 1
        _read_all(selector, result, TICK_S)
    result.seconds = now_s - began_s
    while result.acked < result.sent and time.monotonic() < now_s + DRAIN_S:
        _read_all(selector, result, TICK_S)
    for each in publishers:
        each.socket.close()
    return result


def _read_all(selector: selectors.BaseSelector, result: Result, nap_s: float) -> None:
    deadline_s = time.monotonic() + nap_s
    for key, _ in selector.select(nap_s):
        key.data.read(result)
    time.sleep(max(0.0, deadline_s - time.monotonic()))


def _length(size: int) -> bytes:
    return bytes([size & 127 | 128, size >> 7]) if size > 127 else bytes([size])


# -- HTTP ----------------------------------------------------------------------------------------------------------


class Poster:
    def __init__(self, address: tuple[str, int], login: Login, boot: str, batch: int) -> None:
        self._numbers = Numbers(boot)
        self._batch = batch
        media = "application/json" if batch == 1 else "application/x-ndjson"
        self._head = (
            f"POST /v1/telemetry HTTP/1.1\r\nHost: bench\r\nContent-Type: {media}\r\n"
            f"Authorization: Bearer {login.device}.{login.secret}\r\nContent-Length: "
        ).encode()
        self._answer = b""
        self._sent_at = 0.0
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, result: Result) -> None:
        body = b"\n".join([self._numbers.reading() for _ in range(self._batch)])
        self._sent_at = time.monotonic()
        self.socket.sendall(self._head + b"%d\r\n\r\n" % len(body) + body)
        result.sent += self._batch

    def read(self, result: Result) -> bool:
        """Read what is there; tell whether the answer is whole."""
        chunk = self.socket.recv(65_536)
        if not chunk:
            raise ConnectionResetError
        self._answer += chunk
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return False
        status = head[9:12].decode()
        result.answers[status] += 1
        result.acked += self._batch if status == "202" else 0
        result.ack_ms.append(1e3 * (time.monotonic() - self._sent_at))
        self._answer = b""
        return True


def post(address: tuple[str, int], logins: list[Login], seconds: float, boot: str, batch: int) -> Result:
    """Post, each device on a connection of its own, the next body as soon as the last is answered."""
    result = Result()
    selector = selectors.DefaultSelector()
    for login in logins:
        poster = Poster(address, login, boot, batch)
        selector.register(poster.socket, selectors.EVENT_READ, poster)
    began_s = time.monotonic()
    posting = {key.fileobj for key in selector.get_map().values()}
    for key in list(selector.get_map().values()):
        key.data.post(result)
    while posting and time.monotonic() < began_s + seconds + DRAIN_S:
        for key, _ in selector.select(0.1):
            if key.data.read(result):
                if time.monotonic() < began_s + seconds:
                    key.data.post(result)
                else:
                    posting.discard(key.fileobj)
    result.seconds = time.monotonic() - began_s
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    return result


class _Asker:
    """One connection that is kept; it costs a quarter of http.client."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due_s = 0.0
        self.kind = ""
        self._answer = b""

    def read(self) -> bool:
        """Read what is there; tell whether the answer is whole. Any but a good one ends the run."""
        chunk = self.socket.recv(262_144)
        self._answer += chunk
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if chunk and (not end or len(body) < int(length or 0)):
            return False
        if not head.startswith(b"HTTP/1.1 2"):
            raise SystemExit(f"{self.kind}: {self._answer[:400]!r}")
        self._answer = b""
        return True


def ask(address: tuple[str, int], requests: list[tuple[str, bytes]], rate: float, connections: int) -> Result:
    """Send requests (kind, bytes) when they are due; times count from then, whether a connection is free or not."""
    result, selector = Result(), selectors.DefaultSelector()
    askers = [_Asker(address) for _ in range(connections)]
    for each in askers:
        selector.register(each.socket, selectors.EVENT_READ, each)
    free, began_s = deque(askers), time.monotonic() + 0.1
    while result.acked < len(requests):
        due_s = began_s + result.sent / rate
        while free and result.sent < len(requests) and due_s <= time.monotonic():
            asker = free.popleft()
            asker.due_s, (asker.kind, content) = due_s, requests[result.sent]
            asker.socket.sendall(content)
            result.sent += 1
            due_s = began_s + result.sent / rate
        is_next = free and result.sent < len(requests)
        for key, _ in selector.select(max(0.0, due_s - time.monotonic()) if is_next else None):
            if key.data.read():
                free.append(key.data)
                result.acked += 1
                result.of_kind.setdefault(key.data.kind, []).append(1e3 * (time.monotonic() - key.data.due_s))
    result.seconds = time.monotonic() - began_s
    result.ack_ms = [each for several in result.of_kind.values() for each in several]
    for each in askers:
        each.socket.close()
    return result


def post_in_turn(address: tuple[str, int], logins: list[Login], at_once: int) -> Result:
    """Open a connection for each device, keep them all, and let each post twice, so many at a time."""
    result = Result()
    posters = [Poster(address, login, "turn", 1) for login in logins]
    for start in [*range(0, len(posters), at_once)] * 2:
        group = posters[start : start + at_once]
        for poster in group:
            poster.post(result)
        for poster in group:
            while not poster.read(result):
                pass
    for poster in posters:
        poster.socket.close()
    return result
