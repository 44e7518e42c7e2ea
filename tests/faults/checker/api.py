"""The public HTTP API as the checker uses it: http.client, one connection a thread."""

from __future__ import annotations

import http.client
import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

IDLE_S = 20.0
BROKEN = (OSError, http.client.HTTPException)


class Door:
    """Calls the gateway; a call that gets no answer raises one of BROKEN and leaves a fresh connection."""

    def __init__(self, url: str, bearer: str, timeout_s: float = 15.0) -> None:
        self.address = urlsplit(url).netloc
        self._bearer = bearer
        self._timeout_s = timeout_s
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
        connection = self._connection()
        sent = {"Authorization": f"Bearer {self._bearer}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        except BROKEN:
            connection.close()  # the next request opens it again
            raise

    def _connection(self) -> http.client.HTTPConnection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(self.address, timeout=self._timeout_s)
            self._connections.append(connection)
        elif time.monotonic() - self._local.used_s > IDLE_S:  # the gateway may have closed it just now
            connection.close()
        self._local.used_s = time.monotonic()
        return connection

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def get(self, path: str, within_s: float = 60.0, **query: str) -> Any:
        """Give the JSON of a 200; a platform that is just coming back is asked again."""
        deadline_s = time.monotonic() + within_s
        while True:
            try:
                status, body, _ = self.call("GET", f"{path}?{urlencode(query)}" if query else path)
            except BROKEN as error:
                status, body = 0, str(error).encode()
            if status == 200:
                return json.loads(body)
            assert time.monotonic() < deadline_s, (path, status, body[:300])
            time.sleep(0.1)

    def register(self, device: str, **more: Any) -> dict[str, Any]:
        """Make a device and give its credential."""
        for _ in range(10):
            status, body, _ = self.call("POST", "/v1/devices", json.dumps({"id": device} | more).encode())
            if status != 503:
                break
            time.sleep(1)  # as Retry-After says
        assert status == 201, (status, body[:300])
        credential: dict[str, Any] = json.loads(body)["credential"]
        return credential

    def rows(self, device: str) -> list[dict[str, Any]]:
        """Give all points of a device."""
        found: list[dict[str, Any]] = []
        query = {"device": device, "start": "1970-01-01T00:00:00Z", "end": "2200-01-01T00:00:00Z", "limit": "1000"}
        while True:
            page = self.get("/v1/query/range", **query)
            found += page["points"]
            if not page["next"]:
                return found
            query["cursor"] = page["next"]


def operator(url: str, token_file: Path) -> Door:
    return Door(url, token_file.read_text().strip())
