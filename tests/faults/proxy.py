"""A TCP proxy that does to a connection what networks do: delay, narrow, cut, reset, go silent, repeat and disorder."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST
CHUNK = 65_536
PUBLISH, PUBACK, DUP = 3, 4, 0x08


class Filter(Protocol):
    """What passes one way of a connection."""

    def __call__(self, chunk: bytes) -> bytes: ...


class Proxy:
    """Listens on `port`, connects to `target()` for each connection; the attributes act at once on all of them."""

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        self._target = target
        self.latency_s = 0.0
        self.bytes_per_s = 0.0  # 0: no bound
        self.repeats: Repeats | None = None  # for connections made from now on
        self._up, self._down = threading.Event(), threading.Event()  # set: bytes flow that way
        self._up.set(), self._down.set()
        self._is_cut = False
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()  # guards _sockets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def reset(self) -> None:
        """Break all connections with RST."""
        with self._lock:
            victims = list(self._sockets)
        for each in victims:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break all connections and let no new one through."""
        self._is_cut = True
        self.reset()

    def silence(self, *, up: bool = True, down: bool = True) -> None:
        """Let connections stand, but no byte pass: a partition, or half of one."""
        for way, is_silent in ((self._up, up), (self._down, down)):
            way.clear() if is_silent else way.set()

    def heal(self) -> None:
        self._is_cut = False
        self.latency_s = self.bytes_per_s = 0.0
        self.repeats = None
        self._up.set()
        self._down.set()

    def close(self) -> None:
        self._listener.close()
        self.heal()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._is_cut:
                    raise ConnectionRefusedError
                server = socket.create_connection(self._target(), timeout=5)
            except (OSError, KeyError, ValueError):
                client.close()
                continue
            self._join(client, server)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        for each in (client, server):
            each.settimeout(None)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets |= {client, server}
        up, down = self.repeats.filters() if self.repeats else (bytes, bytes)
        left = [client, server]
        for source, sink, way, passes in ((client, server, self._up, up), (server, client, self._down, down)):
            threading.Thread(target=self._pump, args=(source, sink, way, passes, left), daemon=True).start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        way: threading.Event,
        passes: Filter,
        left: list[socket.socket],
    ) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK if not self.bytes_per_s else 512):
                way.wait()
                if self.latency_s:
                    time.sleep(self.latency_s)
                if self.bytes_per_s:
                    time.sleep(len(chunk) / self.bytes_per_s)
                sink.sendall(passes(chunk))
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(source)
            left.remove(source)
            if left:
                return
        source.close()
        sink.close()


class Repeats:
    """Sends each PUBLISH of QoS 1 `times` times and in another order. The sender sees one PUBACK for each it sent."""

    def __init__(self, times: int, seed: int, *, from_server: bool = False) -> None:
        self._times = times
        self._random = random.Random(seed)
        self._from_server = from_server

    def filters(self) -> tuple[Filter, Filter]:
        """Filters of a new connection: client to server, server to client."""
        pending: Counter[int] = Counter()  # acknowledgements that the sender does not expect, by message id
        publishes, acks = (
            Frames(lambda frames: self._repeat(frames, pending)),
            Frames(lambda frames: _once(frames, pending)),
        )
        return (acks, publishes) if self._from_server else (publishes, acks)

    def _repeat(self, frames: list[bytes], pending: Counter[int]) -> list[bytes]:
        messages: list[bytes] = []
        others: list[bytes] = []
        for frame in frames:
            if frame[0] >> 4 != PUBLISH or not frame[0] & 0x06:
                others.append(frame)
                continue
            copies = [frame] + [bytes([frame[0] | DUP]) + frame[1:]] * (self._times - 1)
            pending[_mid_of(frame)] = self._times
            messages += copies
        self._random.shuffle(messages)
        return others + messages


def _once(frames: list[bytes], pending: Counter[int]) -> list[bytes]:
    """Let only the last of the acknowledgements of a message through."""
    passed = []
    for frame in frames:
        mid = int.from_bytes(frame[2:4]) if frame[0] >> 4 == PUBACK else 0
        if mid in pending:
            pending[mid] -= 1
            if pending[mid]:
                continue
            del pending[mid]
        passed.append(frame)
    return passed


class Frames:
    """Cuts a stream into MQTT packets (MQTT 3.1.1 s. 2.2) and passes whole ones through `change`."""

    def __init__(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        self._change = change
        self._rest = b""

    def __call__(self, chunk: bytes) -> bytes:
        self._rest += chunk
        frames = []
        while size := _size_of(self._rest):
            frames.append(self._rest[:size])
            self._rest = self._rest[size:]
        return b"".join(self._change(frames))


def _size_of(stream: bytes) -> int:
    """Size of the first packet; 0 when it is not all there."""
    length = 0
    for index in range(1, min(5, len(stream))):
        length |= (stream[index] & 0x7F) << 7 * (index - 1)
        if not stream[index] & 0x80:
            size = 1 + index + length
            return size if size <= len(stream) else 0
    return 0


def _mid_of(publish: bytes) -> int:
    start = next(index for index in range(1, 5) if not publish[index] & 0x80) + 1
    place = start + 2 + int.from_bytes(publish[start : start + 2])
    return int.from_bytes(publish[place : place + 2])
