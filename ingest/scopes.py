"""Which devices a token for some devices only is for, as the registry finds them now."""

from __future__ import annotations

from typing import Any

from ingest.gate import Gate
from wire.devices import Principal
from wire.errors import BadRequest

PAGE = 5_000
MAX_DEVICES = 30_000  # as for queries of readings


def reached_by(asker: Principal, gate: Gate) -> tuple[str, ...] | None:
    """Give the ids of the devices that a token is for; None: all of the tenant, whose ids are not asked for.

    Raises:
        PeerUnavailable: the registry is away.
        BadRequest: they are more than MAX_DEVICES.
    """
    if not asker.devices:
        return None
    ids: list[str] = []
    asked: dict[str, Any] = {"tenant": asker.tenant, "scope": asker.devices, "limit": PAGE}
    while len(ids) <= MAX_DEVICES:
        page = gate.ask("POST", "/internal/devices:select", asked)
        ids += page["ids"]
        if not page["next"]:
            return tuple(ids)
        asked["after"] = page["next"]
    raise BadRequest(f"the token is for more than {MAX_DEVICES} devices, the limit here")
