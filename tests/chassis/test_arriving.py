from __future__ import annotations

import pytest

from chassis.arriving import BODY_BYTES, HEAD_BYTES, missing_bytes

HEAD = b"POST /v1/devices HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("received", "missing"),
    [
        (b"G", 1), (b"\r\n\r\nG", 1), (HEAD, 1), (HEAD + b"X", 1), (HEAD + b"\r", 1),
        (HEAD + b"Content-Length: 10\r\n\r\n", 10), (HEAD + b"content-length:10 \r\n\r\n123", 7),
        (HEAD + b"Content-Length: %d\r\n\r\n" % BODY_BYTES, BODY_BYTES),
    ],
)  # fmt: skip
def test_plain_beginning_is_waited_for(received: bytes, missing: int) -> None:
    assert missing_bytes(received) == missing


@pytest.mark.parametrize(
    "received",
    [
        HEAD + b"\r\n", HEAD + b"Content-Length: 3\r\n\r\nabc", HEAD + b"Content-Length: 3\r\n\r\nabcGET /",
        HEAD + b"Content-Length: %d\r\n\r\n" % (BODY_BYTES + 1), b"a" * (HEAD_BYTES + 1),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", HEAD + b"Content-Length: +3\r\n\r\n",
        HEAD + b"Content-Length: 3,4\r\n\r\n", b"GET / HTTP/1.1\n", HEAD + b"X: a\nY: b", b"GE\0",
        HEAD + b"Content-Length: 999999999999\r\n\r\n",
    ],
)  # fmt: skip
def test_whole_and_odd_requests_are_not(received: bytes) -> None:
    assert missing_bytes(received) == 0
