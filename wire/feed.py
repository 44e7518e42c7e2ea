"""The feed: frames between writer, dashboard and websocket readers (`GET /v1/feed`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wire.devices import Model

MAX_FRAME_BYTES = 60_000  # below 64 KB: proxies and small clients choke on larger websocket frames
CLOSE_SLOW = 1013  # "try again later", RFC 6455 registry: a reader that fell too far behind


class Subscription(Model):
    """What one reader wants; an empty list means all. With `query`, only devices that it finds, as they come and go."""

    devices: Annotated[list[str], Field(max_length=10_000)] = []
    query: Annotated[str, Field(max_length=2_000)] = ""
    fields: Annotated[list[str], Field(max_length=256)] = []


class SubscribeFrame(Model):
    """First and later frames from a reader."""

    subscribe: Subscription
