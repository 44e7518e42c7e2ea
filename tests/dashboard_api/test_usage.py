from __future__ import annotations

import threading
from typing import Any

from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from dashboard_api.usage import tell, tell_until
from tests.dashboard_api.fakes import SERVICE_TOKEN, FakePeer, MemoryReader, demo
from wire.errors import PeerUnavailable

HANDSHAKE = {
    "Authorization": "Bearer viewer-token", "Upgrade": "websocket", "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


class Registry:
    """Remembers what it is told."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.told: list[Any] = []
        self._is_away = is_away

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self._is_away:
            raise PeerUnavailable("away for the test")
        self.told.append((method, path, body))


def test_readers_are_told_once_more_at_the_end() -> None:
    registry, stopping = Registry(), threading.Event()
    stopping.set()

    tell_until(stopping, registry, lambda: {"acme": 2})

    assert registry.told == [("POST", "/internal/usage", {"tenants": {"acme": {"feed_readers": 2}}})]


def test_nobody_is_no_report_and_an_absent_registry_no_fault() -> None:
    registry = Registry()

    tell(registry, {})
    tell(Registry(is_away=True), {"acme": 1})

    assert registry.told == []


def test_feed_remembers_readers_that_left() -> None:
    peer = FakePeer(demo()[0])
    app = assemble(DashboardConfig(service_token=SERVICE_TOKEN), Ports(MemoryReader(), peer, peer))
    feed = app.extensions["headwater.feed"]

    app.test_client().get("/v1/feed", headers=HANDSHAKE)  # let in, and gone at once: there is no socket here

    assert (feed.take_most(), feed.take_most()) == ({"default": 1}, {})
