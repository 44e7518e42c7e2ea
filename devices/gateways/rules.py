"""What a gateway's rules make of children. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from wire.gateways import GatewayRules


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
