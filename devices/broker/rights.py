"""What a device may do at a broker: its own branch, nothing else. `compose/broker.acl` says the same to mosquitto."""

from __future__ import annotations

from typing import Final, Literal

Action = Literal["publish", "subscribe"]
WRITES: Final = (
    "devices/{id}/telemetry",
    "devices/{id}/telemetry/+",
    "devices/{id}/children/+/telemetry",
    "devices/{id}/children/+/telemetry/+",
    "devices/{id}/status",
    "devices/{id}/twin/reported",
    "devices/{id}/commands/+/reply",
    "devices/{id}/children/+/twin/reported",
    "devices/{id}/children/+/commands/+/reply",
)
READS: Final = (
    "devices/{id}/twin/desired",
    "devices/{id}/commands/+",
    "devices/{id}/children/+/twin/desired",
    "devices/{id}/children/+/commands/+",
    "devices/{id}/errors",
    "devices/{id}/acks",
)
_OF: Final = {"publish": WRITES, "subscribe": READS}


def topics_of(device_id: str, action: Action) -> list[str]:
    """Give the topics, or filters, that a device may use."""
    return [pattern.replace("{id}", device_id) for pattern in _OF[action]]


def may(device_id: str, action: Action, topic: str) -> bool:
    """Tell whether a device may publish on a topic, or subscribe to a filter."""
    return any(_covers(pattern.split("/"), topic.split("/")) for pattern in topics_of(device_id, action))


def _covers(pattern: list[str], asked: list[str]) -> bool:
    """Tell whether all that a filter asks for is in a pattern, whose `+` is one level, asked by `+` or by name."""
    if len(pattern) != len(asked) or "#" in asked:
        return False
    return all(mine in ("+", theirs) for mine, theirs in zip(pattern, asked, strict=True))
