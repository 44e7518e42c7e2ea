"""The platform as an operator's program sees it: registry, balance sheet, quarantine and queries over HTTP."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from simulators import sparkplug
from simulators.http import Endpoint, HttpClient, Response

PAGE = 10_000
_CONNECTIONS = 4
_ATTEMPTS = 8  # with the pauses below a minute in sum: a service that is restarted meanwhile is waited for
_PAUSE_MAX_S = 5.0
_AGAIN_STATUS = frozenset({429, 500, 502, 503, 504})


class PlatformError(Exception):
    """The platform refused an operator's request, or cannot be reached; the text is for the person at the terminal."""


def read_token(path: Path) -> str:
    """Read an operator's token.

    Raises:
        PlatformError: the file cannot be read.
    """
    try:
        return path.read_text().strip()
    except OSError as error:
        raise PlatformError(f"operator token: {error.strerror}: {path} (see --token-file)") from error


class PlatformApi:
    """Asks with an operator's token, on a few connections, again when the platform says later."""

    def __init__(self, endpoint: Endpoint, token: str) -> None:
        self._endpoint = endpoint
        self._headers = f"Authorization: Bearer {token}\r\nAccept: application/json\r\n"
        self._idle = [HttpClient(endpoint) for _ in range(_CONNECTIONS)]
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def get(self, path: str, query: list[tuple[str, str | int]] | None = None) -> Any:
        """Read JSON.

        Raises:
            PlatformError: refused, or no answer after all attempts.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        return _json(await self.ask("GET", target), target)

    async def ask(self, method: str, target: str, body: bytes = b"", media: str = "application/json") -> Response:
        """Ask until there is an answer other than `later`.

        Raises:
            PlatformError: no such answer after all attempts.
        """
        trouble = ""
        headers = self._headers + (f"Content-Type: {media}\r\n" if body else "")
        for attempt in range(_ATTEMPTS):
            try:
                response = await self._once(method, target, headers, body)
            except OSError as error:
                trouble = str(error) or "no answer in time"
                pause_s = 0.0 if attempt == 0 else 0.25 * 2**attempt
            else:
                if response.status not in _AGAIN_STATUS:
                    return response
                trouble = f"HTTP {response.status}"
                pause_s = response.retry_after_s or 0.25 * 2**attempt
            await asyncio.sleep(min(_PAUSE_MAX_S, pause_s))
        raise PlatformError(f"http://{self._endpoint.authority}{target.split('?', maxsplit=1)[0]}: {trouble}")

    async def ledger(self) -> dict[str, Any]:
        """Read the platform's balance sheet."""
        return dict(await self.get("/v1/ledger"))

    async def points(self, device_id: str, start_ns: int, end_ns: int) -> AsyncIterator[list[dict[str, Any]]]:
        """Page through all points of a device in [start, end)."""
        query: list[tuple[str, str | int]] = [
            ("device", device_id),
            ("start", start_ns),
            ("end", end_ns),
            ("limit", PAGE),
        ]
        async for page in self._pages("/v1/query/range", query, "points"):
            yield page

    async def quarantined(self, device_id: str) -> AsyncIterator[list[dict[str, Any]]]:
        """Page through the quarantine entries of a device."""
        async for page in self._pages("/v1/quarantine", [("device", device_id), ("limit", 1000)], "items"):
            yield page

    async def latest_time(self, device_id: str) -> str | None:
        """Read the time of a device's newest point; None when it has none."""
        points = (await self.get("/v1/query/latest", [("device", device_id)]))["points"]
        return max((point["time"] for point in points), default=None)

    async def ensure_type(self, body: dict[str, Any]) -> None:
        """Create a device type unless there is one of that name.

        Raises:
            PlatformError: refused.
        """
        found = await self.ask("GET", f"/v1/device-types/{quote(body['name'], safe='')}")
        if found.status == 200:  # noqa: PLR2004
            return
        made = await self.ask("POST", "/v1/device-types", orjson.dumps(body))
        if made.status not in {200, 201, 409}:
            raise PlatformError(f"device type {body['name']}: {_complaint(made)}")

    async def import_devices(self, csv: str) -> list[dict[str, str]]:
        """Register devices in bulk; gives the credentials of those that are new.

        Raises:
            PlatformError: refused as a whole.
        """
        response = await self.ask("POST", "/v1/devices:import", csv.encode(), "text/csv")
        answer = _json(response, "/v1/devices:import", allowed=frozenset({200, 201, 207, 409, 422}))
        if not isinstance(answer, dict) or "credentials" not in answer:
            raise PlatformError(f"/v1/devices:import: {_complaint(response)}")
        return list(answer["credentials"])

    async def name_node(self, device_id: str) -> None:
        """Let a device have the topics of its edge node, and be known by the node's name. Done before, it stays.

        Raises:
            PlatformError: refused.
        """
        path = f"/v1/devices/{quote(device_id, safe='')}"
        topics = {"filter": sparkplug.claim(device_id), "protocol": sparkplug.SPARKPLUG}
        for target, body in (
            (f"{path}/topics", topics),
            (f"{path}/names", {"name": sparkplug.external_name(device_id)}),
        ):
            answer = await self.ask("POST", target, orjson.dumps(body))
            _json(answer, target, allowed=frozenset({200, 201, 409}))

    async def rotate(self, device_id: str) -> dict[str, str]:
        """Give an existing device a new credential.

        Raises:
            PlatformError: refused.
        """
        target = f"/v1/devices/{quote(device_id, safe='')}/credentials:rotate"
        answer = _json(await self.ask("POST", target, b"{}"), target, allowed=frozenset({200, 201}))
        return dict(answer.get("credential", answer))

    async def send_command(self, device_id: str, number: int, deadline_s: float) -> str:
        """Queue a command for a device, once however often it is asked for; give its id.

        Raises:
            PlatformError: refused.
        """
        target = f"/v1/devices/{quote(device_id, safe='')}/commands"
        wanted = {"name": "work", "params": {"n": number}, "deadline_s": deadline_s}
        body = orjson.dumps(wanted | {"idempotency_key": secrets.token_hex(8)})
        return str(_json(await self.ask("POST", target, body), target, allowed=frozenset({200, 201}))["id"])

    async def desire(self, device_id: str, patch: dict[str, Any]) -> None:
        """Patch what a device is wanted to be.

        Raises:
            PlatformError: refused.
        """
        target = f"/v1/devices/{quote(device_id, safe='')}/twin/desired"
        _json(await self.ask("PATCH", target, orjson.dumps(patch)), target)

    async def commands(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Page through the commands of all devices, newest first."""
        async for page in self._pages("/v1/commands", [("limit", 1000)], "items"):
            yield page

    def close(self) -> None:
        """Drop all connections."""
        for client in self._idle:
            client.close()

    async def _once(self, method: str, target: str, headers: str, body: bytes) -> Response:
        async with self._free:
            client = self._idle.pop()
            try:
                return await client.request(method, target, headers=headers, body=body)
            finally:
                self._idle.append(client)

    async def _pages(
        self,
        path: str,
        query: list[tuple[str, str | int]],
        member: str,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        cursor: str | None = None
        while True:
            answer = await self.get(path, [*query, ("cursor", cursor)] if cursor else query)
            yield answer[member]
            cursor = answer.get("next")
            if not cursor:
                return


def _json(response: Response, target: str, allowed: frozenset[int] = frozenset({200})) -> Any:
    if response.status not in allowed:
        raise PlatformError(f"{target.split('?', maxsplit=1)[0]}: {_complaint(response)}")
    try:
        return orjson.loads(response.body)
    except ValueError as error:
        raise PlatformError(f"{target.split('?', maxsplit=1)[0]}: the answer is not JSON") from error


def _complaint(response: Response) -> str:
    try:
        problem = orjson.loads(response.body)
        return f"HTTP {response.status} {problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status}"
