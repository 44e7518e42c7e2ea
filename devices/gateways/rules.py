"""What a gateway's rules make of children nobody knows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from wire.gateways import GatewayRules


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
        if rules.prefixes and not child.startswith(tuple(rules.prefixes)):
            refused[child] = "identity_mismatch"
        elif rules.children == "refuse":
            refused[child] = "child_refused"
        elif count + len(fresh) >= rules.max_children:
            refused[child] = "too_many_children"
        else:
            fresh.append(child)
    return fresh, refused
