"""Tells the registry how many readers of the feed each tenant has; best effort."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from chassis import logs
from chassis.peers import Peer
from wire.errors import HeadwaterError

log = logs.get(__name__)
TELL_S = 60.0  # each time is a write of the registry's database
MAX_TENANTS = 1_000  # of one report; the feed takes fewer readers than that


def tell_until(stopping: threading.Event, registry: Peer, take_most: Callable[[], Mapping[str, int]]) -> None:
    """Tell now and then, and once more at the end."""
    while not stopping.wait(TELL_S):
        tell(registry, take_most())
    tell(registry, take_most())


def tell(registry: Peer, most: Mapping[str, int]) -> None:
    """Tell the most readers that each tenant had; what cannot be told is given up."""
    if not most:
        return
    told = {tenant: {"feed_readers": count} for tenant, count in list(most.items())[:MAX_TENANTS]}
    try:
        registry.call("POST", "/internal/usage", {"tenants": told})
    except HeadwaterError as error:
        log.warning("usage_not_told", code=error.code)
