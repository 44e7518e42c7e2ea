"""A device's HTTP way to the platform: posts its readings in order, and posts them again until the platform decides.

2xx = kept. 4xx with a `quarantined` list = kept there. 429, 503 and broken connections = not kept: the same body
again, no sooner than Retry-After says. Other 4xx = refused for good. Knows nothing of what a reading says.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from simulators.dice import Dice
from simulators.http import Endpoint, HttpClient, Response
from simulators.outbox import AUTH_GRACE_S, AUTH_RETRY_S, Login, Outgoing, Renew, Sink, Spawn, backoff_s
from simulators.payloads import to_ns

_LOGIN_STATUS = frozenset({401, 403})
_AGAIN_STATUS = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What all devices of a run share."""

    endpoint: Endpoint
    path: str = "/v1/telemetry"
    batch: int = 1  # readings per request; more than one goes as NDJSON
    media_type: str = "application/json"  # of a single one
    timeout_s: float = 30.0


class HttpSender:
    """The connection of one device, over all its reconnects."""

    def __init__(
        self,
        settings: HttpSettings,
        login: Login,
        sink: Sink,
        rng: Dice,
        renew: Renew | None = None,
    ) -> None:
        self._settings, self._login, self._sink, self._rng, self._renew = settings, login, sink, rng, renew
        self._client = HttpClient(settings.endpoint, settings.timeout_s)
        self._headers = self._make_headers()
        self._waiting: deque[Outgoing] = deque()
        self._posting: list[Outgoing] = []
        self._wake = asyncio.Event()
        self._is_flushing = False
        self._is_closing = self._is_running = False
        self._refused_since = 0.0
        self._renewed = False

    @property
    def doubtful(self) -> int:
        """Nothing: the platform's own acknowledgement means that it is on disk."""
        return 0

    @property
    def backlog(self) -> int:
        """Readings neither kept nor refused."""
        return len(self._waiting) + len(self._posting)

    @property
    def is_done(self) -> bool:
        """Tell whether it was closed and posts no more."""
        return self._is_closing and not self._is_running

    def start(self, spawn: Spawn, ready: Callable[[], None]) -> None:
        """Post until closed; a device on HTTP needs no connection before its first reading."""
        self._is_running = True
        spawn(self._run())
        ready()

    def offer(self, outgoing: Outgoing) -> None:
        """Take a reading to post."""
        self._waiting.append(outgoing)
        if len(self._waiting) >= self._settings.batch:
            self._wake.set()

    def flush(self) -> None:
        """Post what is there, be the batch full or not; no further readings will come."""
        self._is_flushing = True
        self._wake.set()

    def break_connection(self) -> None:
        """Cut the connection, as a lost radio link would."""
        self._client.close()

    def lose_power(self) -> None:
        """Cut the connection; HTTP has no state but that, and the queue outlives the power."""
        self._client.close()

    def close(self) -> None:
        """Stop after the present attempt. What is not kept stays so."""
        self._is_closing = True
        self._wake.set()

    async def _run(self) -> None:
        try:
            while not self._is_closing:
                await self._wake.wait()
                self._take()
                if self._posting:
                    await self._deliver()
        finally:
            self._client.close()
            self._is_running = False

    def _take(self) -> None:
        batch = self._settings.batch
        if self._waiting and (self._is_flushing or len(self._waiting) >= batch):
            self._posting = [self._waiting.popleft() for _ in range(min(batch, len(self._waiting)))]
        if not (self._is_flushing and self._waiting) and len(self._waiting) < batch:
            self._wake.clear()

    async def _deliver(self) -> None:
        body = b"\n".join(outgoing.payload for outgoing in self._posting)
        failures = 0
        while self._posting:
            response = await self._post(body, failures)
            if response is not None and self._settle(response):
                self._posting = []
                return
            if self._is_closing:
                return
            failures += 1
            await asyncio.sleep(await self._pause_s(response, failures))

    async def _post(self, body: bytes, failures: int) -> Response | None:
        if failures:
            self._sink.error("resent")
        for outgoing in self._posting:
            if not outgoing.sent_at:
                outgoing.sent_at = time.monotonic()
                self._sink.sent(outgoing)
        try:
            return await self._client.request("POST", self._path(), headers=self._headers, body=body)
        except TimeoutError:
            self._sink.error("timeout")
        except OSError:
            self._sink.error("connect")
        return None

    def _path(self) -> str:
        return self._settings.path.replace("%t", str(to_ns(self._posting[0].ts)))

    def _settle(self, response: Response) -> bool:
        status = response.status
        if status >= 500 or status in _AGAIN_STATUS:  # noqa: PLR2004
            self._sink.error(f"http_{status}")
            return False
        refused = _quarantined(response)
        if 200 <= status < 300 or refused:  # noqa: PLR2004
            self._refused_since = 0.0
            for index, outgoing in enumerate(self._posting):
                self._sink.acked(outgoing, is_quarantined=index in refused)
            return True
        return self._settle_refusal(status)

    def _settle_refusal(self, status: int) -> bool:
        if status in _LOGIN_STATUS:
            self._refused_since = self._refused_since or time.monotonic()
            if time.monotonic() - self._refused_since < AUTH_GRACE_S or (self._renew and not self._renewed):
                return False
        self._sink.error(f"http_{status}")
        for outgoing in self._posting:
            self._sink.refused(outgoing)
        return True

    async def _pause_s(self, response: Response | None, failures: int) -> float:
        jitter = self._rng.random()
        if response is None:
            # The first broken exchange is most often a keep-alive connection that the server closed: go on at once.
            return 0.0 if failures == 1 else backoff_s(failures, jitter)
        if response.status in _LOGIN_STATUS:
            await self._renew_login()
            return AUTH_RETRY_S * (0.75 + 0.5 * jitter)
        asked_s = response.retry_after_s
        return backoff_s(failures, jitter) if asked_s is None else asked_s * (1 + 0.25 * jitter)

    async def _renew_login(self) -> None:
        if self._renew is None or time.monotonic() - self._refused_since < AUTH_GRACE_S:
            return
        self._renewed = True
        login = await self._renew(self._login.device_id)
        if login is not None:
            self._login, self._refused_since = login, 0.0
            self._headers = self._make_headers()

    def _make_headers(self) -> str:
        media_type = self._settings.media_type if self._settings.batch == 1 else "application/x-ndjson"
        bearer = f"Authorization: Bearer {self._login.bearer}\r\n" if self._login.bearer else ""
        return f"Content-Type: {media_type}\r\n{bearer}"


def _quarantined(response: Response) -> set[int]:
    """Give the indexes of the readings kept in quarantine: in a 202, or in a problem document when all were.

    InfluxDB's form of an answer names the first line at fault; there is no other in a request of ours.
    """
    try:
        if b'"quarantined"' in response.body:
            return {int(entry["index"]) for entry in orjson.loads(response.body)["quarantined"]}
        return {orjson.loads(response.body)["line"] - 1} if b'"line"' in response.body else set()
    except (ValueError, KeyError, TypeError):
        return set()
