"""The only HTTP client between services: base URL, timeout, retry rule, token. Tests hand in a fake with `call`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson
import urllib3

from wire.errors import HeadwaterError, NotFound, PeerUnavailable

CONNECT_TIMEOUT_S = 1.0
POOL = 32  # connections per peer: twice the threads of a service; of a dashboard's thousand viewers the others wait
FIRST_SERVER_ERROR = 500
NOT_FOUND = 404
FIRST_ERROR = 400
_FAULTS = {
    "NewConnectionError": "no connection",
    "NameResolutionError": "the name of the host is not known",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "EmptyPoolError": "too many calls wait for it",
    "ProtocolError": "the connection broke, or it is no HTTP server",
    "SSLError": "its certificate is not trusted",
}


class Peer(Protocol):
    """Another service, as its callers see it."""

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """Send JSON (or bytes as they are) and give the parsed answer; `None` for an empty one.

        Raises:
            PeerUnavailable: no connection, a timeout, or a 5xx, with its code if it says so.
            NotFound: 404, with its code.
            HeadwaterError: any other problem, with its code.
        """
        ...


class HttpPeer:
    """A peer over HTTP. Thread-safe. Calls that only read are tried twice, others once: the caller knows best."""

    def __init__(
        self, base_url: str, token: str, *, timeout_s: float = 5.0, remote_ip: Callable[[], str] | None = None
    ) -> None:
        """`remote_ip` gives the address of who a call is made for, which the other service takes for its caller's."""
        self._remote_ip = remote_ip
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(
            maxsize=POOL,
            block=True,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s),
            retries=False,
        )

    def with_timeout(self, timeout_s: float) -> HttpPeer:
        """Give another of the same service, which waits for so long: for what is known to take its time."""
        return HttpPeer(self.base_url, self._token, timeout_s=timeout_s, remote_ip=self._remote_ip)

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """See Peer."""
        headers = {"Authorization": f"Bearer {token or self._token}"}
        if self._remote_ip is not None and (address := self._remote_ip()):
            headers["X-Forwarded-For"] = address
        content = body if isinstance(body, bytes | None) else orjson.dumps(body)
        if content is not None:
            headers["Content-Type"] = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        answer = self._send(method, path, content, headers)
        return _parse(answer, f"{method} {self.base_url}{path}")

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.clear()

    def _send(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        only_reads = method == "GET" or path.endswith(":lookup")
        tries = 2 if only_reads else 1  # a pooled connection may have been closed by a restarted peer
        for left in reversed(range(tries)):
            try:
                return self._pool.request(
                    method, self.base_url + path, body=content, headers=headers, pool_timeout=self._timeout_s
                )
            except urllib3.exceptions.HTTPError as error:
                if not left:
                    raise PeerUnavailable(f"{self.base_url} does not answer: {_say(error)}") from error
        raise AssertionError


def _say(error: Exception) -> str:
    name = type(error).__name__
    return _FAULTS.get(name, name)


def _parse(answer: urllib3.BaseHTTPResponse, what: str) -> Any:
    parsed = _loads(answer.data)
    if answer.status < FIRST_ERROR:
        return parsed
    problem = parsed if isinstance(parsed, dict) else {}
    code = problem.get("code")
    if answer.status >= FIRST_SERVER_ERROR:
        # A fault of the peer is none of who asked it: to the caller it is away, and the code of the fault stays there.
        told, is_fault = f"{what} answered {answer.status}", code == HeadwaterError.code
        detail = f"{told}: {problem['detail']}" if "detail" in problem else told
        raise PeerUnavailable(detail, retry_after_s=_retry_after(answer), code=None if is_fault else code)
    detail = str(problem.get("detail", f"{what} answered {answer.status}"))
    error = (NotFound if answer.status == NOT_FOUND else HeadwaterError)(detail, code=code)
    error.status = answer.status
    error.extra = {k: v for k, v in problem.items() if k not in ("type", "title", "status", "code", "detail")}
    raise error


def _loads(content: bytes) -> Any:
    if not content:
        return None
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content


def _retry_after(answer: urllib3.BaseHTTPResponse) -> int:
    text = answer.headers.get("Retry-After", "1")
    return int(text) if text.isdigit() else 1
