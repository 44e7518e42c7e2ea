"""The HTTP client against a real threaded server, and its reader against any split of the stream."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.http import Endpoint, HttpClient, HttpError, Response, ResponseReader, parse_url
from tests.simulators.fakes import FakePlatform, serving

TOKEN = "Authorization: Bearer operator\r\n"
ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello", b"hello"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n", b"hello"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"hello"),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}", b"{}"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
]


@given(st.sampled_from(ANSWERS), st.data())
def test_split_answer_is_put_together(answer: tuple[bytes, bytes], data: st.DataObject) -> None:
    stream, body = answer
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = ResponseReader()

    found = [reader.feed(stream[start:end]) for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = [response for response in found if response is not None]

    assert whole[0].body == body
    assert whole[0].status in {200, 202, 204}


def test_body_without_length_ends_with_the_connection() -> None:
    reader = ResponseReader()

    assert reader.feed(b"HTTP/1.0 200 OK\r\n\r\nhello") is None
    assert reader.end() == Response(200, {"connection": "close"}, b"hello")


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_stream_that_is_not_http_is_an_error(stream: bytes) -> None:
    with pytest.raises(HttpError):
        ResponseReader().feed(stream)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    with contextlib.suppress(HttpError):
        ResponseReader().feed(b"HTTP/1.1 200 OK\r\n" + data)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://127.0.0.1:8080", Endpoint("127.0.0.1", 8080)),
        ("http://gate/base/", Endpoint("gate", 80, "/base")),
        ("http://[::1]:81", Endpoint("::1", 81)),
    ],
)
def test_url_is_read(url: str, wanted: Endpoint) -> None:
    assert parse_url(url) == wanted


def test_https_url_has_a_context() -> None:
    endpoint = parse_url("https://gate")

    assert endpoint.port == 443
    assert endpoint.tls is not None


@pytest.mark.parametrize("url", ["gate:8080", "mqtt://gate", "http://", ""])
def test_odd_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        parse_url(url)


def test_retry_after_is_read_in_seconds() -> None:
    assert Response(503, {"retry-after": "7"}, b"").retry_after_s == 7
    assert Response(503, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, b"").retry_after_s is None


def test_connection_is_kept_between_requests(platform: FakePlatform) -> None:
    async def scene() -> None:
        client = HttpClient(parse_url(platform.url))
        for _ in range(20):
            assert (await client.request("GET", "/v1/ledger", headers=TOKEN)).status == 200
        client.close()

    asyncio.run(scene())

    assert platform.connections == 1


def test_answer_that_closes_is_followed_by_a_new_connection(platform: FakePlatform) -> None:
    platform.answers = [(503, {"Connection": "close", "Retry-After": "1"})]

    async def scene() -> list[int]:
        client = HttpClient(parse_url(platform.url))
        statuses = [(await client.request("POST", "/v1/telemetry", body=b"{}")).status for _ in range(2)]
        client.close()
        return statuses

    assert asyncio.run(scene()) == [503, 401]
    assert platform.connections == 2


def test_broken_connection_is_an_error_and_the_next_works(platform: FakePlatform) -> None:
    platform.answers = [(0, {})]

    async def scene() -> int:
        client = HttpClient(parse_url(platform.url))
        with pytest.raises(HttpError):
            await client.request("POST", "/v1/telemetry", body=b"{}")
        status = (await client.request("POST", "/v1/telemetry", body=b"{}")).status
        client.close()
        return status

    assert asyncio.run(scene()) == 401


def test_silent_server_ends_in_a_timeout() -> None:
    async def scene() -> None:
        async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with serving(be_silent) as port:
            client = HttpClient(Endpoint("127.0.0.1", port), timeout_s=0.05)
            with pytest.raises(TimeoutError):
                await client.request("GET", "/")

    asyncio.run(scene())
