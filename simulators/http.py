"""A small HTTP/1.1 client on asyncio: one keep-alive connection, one request at a time, bodies of known length.

It never repeats a request by itself: whoever asks knows whether asking twice is harmless.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 256 << 20  # a page of 10,000 points is about 3 MB
_NO_BODY = frozenset({204, 304})
_HEAD_END = b"\r\n\r\n"


class HttpError(ConnectionError):
    """The connection broke, or the peer does not speak HTTP/1.1 as we read it: there is no answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server: where it listens and what precedes each path."""

    host: str
    port: int
    base: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the server asks us to wait (RFC 9110 s. 10.2.3; the form with a date is not read)."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdecimal() else None


def parse_url(url: str, tls: ssl.SSLContext | None = None) -> Endpoint:
    """Read `http://host:port[/base]` or `https://...`.

    Raises:
        ValueError: another scheme, or no host.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"not an http(s) URL: {url!r}")
    is_tls = parts.scheme == "https"
    context = (tls or ssl.create_default_context()) if is_tls else None
    return Endpoint(parts.hostname, parts.port or (443 if is_tls else 80), parts.path.rstrip("/"), context)


@dataclass(slots=True)
class ResponseReader:
    """Put one answer together from a byte stream that may be split anywhere."""

    _buffer: bytearray = field(default_factory=bytearray)
    _head: tuple[int, dict[str, str]] | None = None
    _body: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Response | None:
        """Take bytes; give the answer once it is whole.

        Raises:
            HttpError: not HTTP, or over a limit.
        """
        self._buffer += data
        while self._head is None:
            if not self._read_head():
                return None
        return self._read_body()

    def end(self) -> Response | None:
        """Take the end of the stream: it ends a body without a length (RFC 9112 s. 6.3)."""
        if self._head is None or self._is_chunked() or "content-length" in self._head[1]:
            return None
        return self._finish(bytes(self._buffer))

    def _read_head(self) -> bool:
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise HttpError("response head over 64 KiB")
            return False
        status, headers = _parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + len(_HEAD_END)]
        if status >= 200:  # noqa: PLR2004 - 1xx only announces the answer, RFC 9110 s. 15.2
            self._head = (status, headers)
        return self._head is not None or self._read_head()

    def _read_body(self) -> Response | None:
        assert self._head is not None
        status, headers = self._head
        if status in _NO_BODY:
            return self._finish(b"")
        if self._is_chunked():
            return self._read_chunks()
        length = headers.get("content-length")
        if length is None:
            return None
        wanted = _limit(int(length) if length.isdecimal() else -1)
        if len(self._buffer) < wanted:
            return None
        return self._finish(bytes(self._buffer[:wanted]))

    def _read_chunks(self) -> Response | None:
        while (line_end := self._buffer.find(b"\r\n")) >= 0:
            size = _chunk_size(bytes(self._buffer[:line_end]))
            if size == 0:
                return self._finish(bytes(self._body)) if self._has_trailer_end(line_end) else None
            start = line_end + 2
            if len(self._buffer) < start + size + 2:
                return None
            self._body += self._buffer[start : start + size]
            _limit(len(self._body))
            del self._buffer[: start + size + 2]
        return None

    def _has_trailer_end(self, line_end: int) -> bool:
        return self._buffer.find(_HEAD_END, line_end) >= 0

    def _is_chunked(self) -> bool:
        return self._head is not None and "chunked" in self._head[1].get("transfer-encoding", "").lower()

    def _finish(self, body: bytes) -> Response:
        assert self._head is not None
        return Response(*self._head, body)


class HttpClient:
    """One connection, opened when needed and kept. One request at a time: the caller sees to that."""

    def __init__(self, endpoint: Endpoint, timeout_s: float = 30.0) -> None:
        self._endpoint, self._timeout_s = endpoint, timeout_s
        self._connection: _Connection | None = None

    async def request(self, method: str, path: str, *, headers: str = "", body: bytes = b"") -> Response:
        r"""Ask once. `headers` are ready lines, each ended by `\r\n`.

        Raises:
            OSError: no connection, no answer in time (TimeoutError), or a broken one (HttpError).
        """
        endpoint = self._endpoint
        head = f"{method} {endpoint.base}{path} HTTP/1.1\r\nHost: {endpoint.authority}\r\n{headers}"
        if body or method not in {"GET", "DELETE"}:
            head += f"Content-Length: {len(body)}\r\n"
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = self._connection or await self._open()
                response = await connection.exchange(head.encode("latin-1") + b"\r\n" + body)
        except BaseException:
            self.close()
            raise
        if "close" in response.headers.get("connection", "").lower() or not connection.is_open:
            self.close()
        return response

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _open(self) -> _Connection:
        endpoint, loop = self._endpoint, asyncio.get_running_loop()
        _, self._connection = await loop.create_connection(_Connection, endpoint.host, endpoint.port, ssl=endpoint.tls)
        return self._connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = ResponseReader()
        self._answer: asyncio.Future[Response] | None = None
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass of it

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # bytes nobody asked for
            return
        try:
            response = self._reader.feed(data)
        except HttpError as error:
            self._answer.set_exception(error)
            return
        if response is not None:
            self._answer.set_result(response)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio.Protocol
        self.is_open = False
        if self._answer is None or self._answer.done():
            return
        response = self._reader.end()
        if response is not None:
            self._answer.set_result(response)
        else:
            self._answer.set_exception(HttpError("connection closed without an answer"))

    async def exchange(self, request: bytes) -> Response:
        if not self.is_open or self._transport is None:
            raise HttpError("connection closed while idle")
        self._reader = ResponseReader()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    parts = status_line.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdecimal():  # noqa: PLR2004
        raise HttpError(f"not an HTTP/1.1 answer: {status_line[:40]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if parts[0] == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return int(parts[1]), headers


def _chunk_size(line: bytes) -> int:
    match = re.match(rb"([0-9A-Fa-f]{1,8})[ \t]*(;|$)", line)  # RFC 9112 s. 7.1; what follows is an extension
    if match is None:
        raise HttpError("bad chunk size")
    return _limit(int(match[1], 16))


def _limit(length: int) -> int:
    if not 0 <= length <= MAX_BODY_BYTES:
        raise HttpError(f"response body of {length} bytes, limit {MAX_BODY_BYTES}")
    return length
