"""Where the feed comes from: see test_served for the real broker."""

from __future__ import annotations

import pytest

from dashboard_api.source import FeedSource


@pytest.mark.parametrize("broker", ["127.0.0.1:1883", "[::1]:1883"])
def test_broker_is_named_without_brackets_to_the_client(broker: str) -> None:
    source = FeedSource(broker, "_dashboard", "", lambda _message: None)

    source._client.connect_async(source._host, source._port)

    assert source._client.host in ("127.0.0.1", "::1")
    assert source._client.port == 1883
