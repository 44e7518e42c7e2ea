"""Commands of a device that goes for good: they end with it. SQL inside the transactions of others."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import and_, select, update

from devices.commands.state import NEVER_NS
from devices.control.news import next_revision
from devices.database.engine import Write
from devices.database.tables_control import COMMANDS
from devices.metrics import COMMANDS_ENDED
from devices.rows import Deed, Who

Reason = Literal["device_retired", "device_gone"]  # gone: deleted, or moved to another tenant
_C = COMMANDS.c


def withdraw(transaction: Write, who: Who, device: str, reason: Reason) -> list[Deed]:
    """Cancel what a device of `who`'s tenant was told and has not ended; who waits for it is told.

    Returns:
        What to audit, oldest command first.
    """
    # Takes the lock of commands too, so none is added meanwhile: before the device's row, as edits of twins do.
    revision = next_revision(transaction)
    mine = and_(_C.tenant == who.tenant, _C.device == device, _C.active.is_(True))
    ids = transaction.execute(select(_C.id).where(mine).order_by(_C.seq)).scalars().all()
    end = {"state": "cancelled", "active": False, "ended_ns": transaction.now_ns, "due_ns": NEVER_NS, "error": reason}
    transaction.execute(update(COMMANDS).where(mine).values(**end, revision=revision))
    COMMANDS_ENDED.labels("cancelled").inc(len(ids))
    return [Deed(who, "command.cancel", device, {"id": id_, "reason": reason}) for id_ in ids]
