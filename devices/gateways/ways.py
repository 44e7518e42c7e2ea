"""The way to a device that is seen through a gateway: the only SQL about it.

A gateway in service speaks for its children that its prefixes allow: what holds for their telemetry holds for what
goes down to them and for what they answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import and_, select

from devices.database.engine import Database
from devices.database.tables import DEVICES, PRESENCE
from devices.database.tables_gateways import CHILDREN
from devices.store import PARAMETERS

_GATEWAY = DEVICES.alias("gateway_row")
_PRESENT = PRESENCE.alias("gateway_presence")
COLUMNS = (
    CHILDREN.c.gateway,
    CHILDREN.c.outside,
    _GATEWAY.c.state.label("gateway_state"),
    _PRESENT.c.connected.label("gateway_connected"),
    _PRESENT.c.online.label("gateway_online"),
    _PRESENT.c.said.label("gateway_said"),
)


def join(rows: Any, tenant: Any, device: Any) -> Any:
    """Join the way to each row's device; without a gateway its COLUMNS are null."""
    rows = rows.outerjoin(CHILDREN, and_(CHILDREN.c.tenant == tenant, CHILDREN.c.device == device))
    return rows.outerjoin(_GATEWAY, _of(_GATEWAY)).outerjoin(_PRESENT, _of(_PRESENT))


def gateway_of(row: Any) -> str | None:
    """Give the gateway in service that speaks for a device, by a row with COLUMNS."""
    is_spoken_for = row["gateway"] is not None and not row["outside"] and row["gateway_state"] == "active"
    return str(row["gateway"]) if is_spoken_for else None


def is_here(row: Any, prefix: str = "") -> bool:
    """Tell whether a device, or with the prefix `gateway_` its gateway, listens at the broker."""
    return bool(row[f"{prefix}connected"]) or (bool(row[f"{prefix}online"]) and row[f"{prefix}said"] == "online")


class Ways:
    """Tells who may speak for whom, and notes who tried it without; thread-safe."""

    def __init__(self, database: Database, note: Callable[[str, str], None] = lambda _gateway, _named: None) -> None:
        """`note` takes the attempts: the gateway, and the device that it named."""
        self._database = database
        self.note = note

    def trespass(self, pairs: AbstractSet[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        """Give the code of those pairs of gateway and child where the one may not speak for the other now."""
        states: dict[tuple[str, str], str] = {}
        children = sorted({child for _, child in pairs})
        for start in range(0, len(children), PARAMETERS):
            self._read(children[start : start + PARAMETERS], states)
        codes = {pair: _code(states.get(pair)) for pair in pairs}
        return {pair: code for pair, code in codes.items() if code is not None}

    def _read(self, children: Sequence[str], states: dict[tuple[str, str], str]) -> None:
        rows = join(DEVICES, DEVICES.c.tenant, DEVICES.c.id)
        query = select(DEVICES.c.id, DEVICES.c.state, *COLUMNS).select_from(rows).where(DEVICES.c.id.in_(children))
        with self._database.read() as connection:
            for row in connection.execute(query).mappings():
                gateway = gateway_of(row)
                if gateway is not None:
                    states[gateway, row["id"]] = row["state"]


def _of(table: Any) -> Any:
    key = table.c.id if "id" in table.c else table.c.device
    return and_(table.c.tenant == CHILDREN.c.tenant, key == CHILDREN.c.gateway)


def _code(state: str | None) -> str | None:
    if state is None:
        return "identity_mismatch"
    return None if state == "active" else "device_disabled"
