"""What a device may do at a broker: its own branch, and the topics it has claimed. Nothing else.

`compose/broker.acl` says the first to mosquitto, `devices.broker.access_list` the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from wire.claims import told
from wire.filters import covers

Action = Literal["publish", "subscribe"]
WRITES: Final = (
    "devices/{id}/telemetry",
    "devices/{id}/telemetry/+",
    "devices/{id}/children/+/telemetry",
    "devices/{id}/children/+/telemetry/+",
    "devices/{id}/media/+",
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


def topics_of(device_id: str, action: Action, claimed: Sequence[str] = ()) -> list[str]:
    """Give the topics, or filters, that a device may use; `claimed` are filters of which all topics are its own."""
    own = [*(pattern.replace("{id}", device_id) for pattern in _OF[action]), *claimed]
    return own + told(claimed) if action == "subscribe" else own


def may(device_id: str, action: Action, topic: str, claimed: Sequence[str] = ()) -> bool:
    """Tell whether a device may publish on a topic, or subscribe to a filter."""
    return any(covers(mine, topic) for mine in topics_of(device_id, action, claimed))
