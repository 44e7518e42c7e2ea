"""Tokens for some devices only: how far a route honours them, and whether a device is one of theirs."""

from __future__ import annotations

import re
from typing import Literal, Protocol

from flask import request

from chassis.peers import Peer
from wire.devices import Principal
from wire.errors import Forbidden, NotFound
from wire.topics import is_device_id

# What a route does with a token for some devices only: `any`: it is about no devices; `path`: it is about the one that
# its path names, which has to be one of the token's; `narrowed`: its handler leaves the others out; `refused`: nothing.
Reach = Literal["any", "path", "narrowed", "refused"]
SHOWN = 80  # characters of an id that is nobody's
_OF_DEVICE = re.compile(r"/v1/devices/<(\w+)>")


class Reaches(Protocol):
    """Tells whether a device is among those that a token is for."""

    def holds(self, principal: Principal, device_id: str) -> bool:
        """Tell whether the tenant has the device, whose id is one, and the token reaches it."""
        ...


class PeerReaches:
    """Asks the registry."""

    def __init__(self, registry: Peer) -> None:
        self._registry = registry

    def holds(self, principal: Principal, device_id: str) -> bool:
        """See Reaches.

        Raises:
            PeerUnavailable: the registry is away.
        """
        asked = {"tenant": principal.tenant, "scope": principal.devices, "id": device_id, "limit": 1}
        return bool(self._registry.call("POST", "/internal/devices:select", asked)["ids"])


def by_rule(method: str, rule: str) -> Reach:
    """Give what holds for a route that declares nothing: what reads of a device is about that one, others refuse."""
    return "path" if method == "GET" and _OF_DEVICE.match(rule) else "refused"


def demand(principal: Principal, rule: str, reach: Reach, reaches: Reaches | None) -> None:
    """Let a request pass as far as the devices go that its token is for.

    Raises:
        Forbidden: the route is not for such tokens.
        NotFound: the device of its path is none of the token's.
    """
    if not principal.devices or reach in ("any", "narrowed"):
        return
    named = _OF_DEVICE.match(rule)
    if reach == "refused" or named is None or reaches is None:
        raise Forbidden("this is not for a token for some devices only", code="out_of_scope")
    device = str((request.view_args or {})[named[1]])
    if not is_device_id(device) or not reaches.holds(principal, device):
        raise NotFound(f"no device {device[:SHOWN]!r}", code="device_not_found")
