"""What gateways tried beyond their rights over twins and commands, for the audit: of a flood a few entries stay."""

from __future__ import annotations

import re
import threading
import time

from sqlalchemy import select

from devices.database.engine import Database
from devices.database.tables import DEVICES
from devices.rows import Deed, Who

SAME_S = 60.0  # the same attempt again within this time is not noted again
OF_ONE = 20  # attempts of one gateway within it
REMEMBERED = 1_000  # gateways
_ODD = re.compile(r"[^\x20-\x7e]")  # names come from strangers


class Attempts:
    """Collects them; `flush` writes them down. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()  # guards the two below
        self._told: dict[str, dict[str, float]] = {}  # gateway -> named -> monotonic time it was noted
        self._new: list[tuple[str, str, str]] = []

    def note(self, gateway: str, named: str, remote_ip: str = "") -> None:
        """Note that a gateway named a device that it does not speak for."""
        named, now_s = _ODD.sub("?", named)[:64], time.monotonic()
        with self._lock:
            if gateway not in self._told and len(self._told) >= REMEMBERED:
                self._told.clear()
            told = {key: at_s for key, at_s in self._told.get(gateway, {}).items() if now_s - at_s < SAME_S}
            self._told[gateway] = told
            if named in told or len(told) >= OF_ONE:
                return
            told[named] = now_s
            self._new.append((gateway, named, remote_ip))

    def flush(self) -> None:
        """Write down what was noted; one thread does. While the database is away it is kept."""
        with self._lock:
            new = list(self._new)
        if not new:
            return
        gateways = {gateway for gateway, _, _ in new}
        with self._database.write() as transaction:
            query = select(DEVICES.c.id, DEVICES.c.tenant).where(DEVICES.c.id.in_(gateways))
            tenants = {row.id: row.tenant for row in transaction.execute(query)}
            transaction.audit(
                Deed(
                    Who(f"device:{gateway}", remote_ip, tenants[gateway]),
                    "control.identity_mismatch",
                    f"device:{named}",
                )
                for gateway, named, remote_ip in new
                if gateway in tenants
            )
        with self._lock:
            del self._new[: len(new)]
