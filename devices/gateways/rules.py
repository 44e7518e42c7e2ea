"""What a gateway's rules make of children. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wire.errors import Conflict
from wire.gateways import GatewayRules


@dataclass(slots=True)
class Room:
    """What a gateway still takes."""

    gateway: str
    rules: GatewayRules
    count: int = 0  # of its children


def take(rooms: Mapping[str, Room | None], gateway: str, child: str) -> None:
    """Count one more child of a gateway.

    Args:
        rooms: of the tenant's devices that are named as gateways; None: it is none.
        gateway: the one meant.
        child: a device that is no gateway.

    Raises:
        Conflict: there is no such gateway, the child is beyond its prefixes, or it has as many as it may.
    """
    if gateway not in rooms:
        raise Conflict(f"no gateway {gateway}: it must be registered first", code="gateway_not_found")
    room = rooms[gateway]
    if room is None:
        raise Conflict(f"device {gateway} is no gateway", code="not_a_gateway")
    if not speaks_for(room.rules, child):  # else ingestion would refuse each message of it
        allowed = ", ".join(room.rules.prefixes)
        raise Conflict(
            f"gateway {gateway} does not speak for {child}: its prefixes are {allowed}", code="beyond_prefixes"
        )
    if room.count >= room.rules.max_children:
        text = f"gateway {gateway} has {room.count} children, as many as it may"
        raise Conflict(text, code="too_many_children")
    room.count += 1


def speaks_for(rules: GatewayRules, child: str) -> bool:
    """Tell whether a gateway's prefixes let it speak for an id."""
    return not rules.prefixes or child.startswith(tuple(rules.prefixes))


def judge(rules: GatewayRules, ids: Sequence[str], count: int) -> tuple[list[str], dict[str, str]]:
    """Divide unknown ids into those that are registered and the codes of those that are not.

    Args:
        rules: of the gateway that named them.
        ids: each once.
        count: how many children the gateway has.
    """
    fresh: list[str] = []
    refused: dict[str, str] = {}
    for child in ids:
        if not speaks_for(rules, child):
            refused[child] = "identity_mismatch"
        elif rules.children == "refuse":
            refused[child] = "child_refused"
        elif count + len(fresh) >= rules.max_children:
            refused[child] = "too_many_children"
        else:
            fresh.append(child)
    return fresh, refused
