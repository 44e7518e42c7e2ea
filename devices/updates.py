"""Changes of devices, several in one transaction: what each costs alone is mostly its questions to the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from devices.database.engine import Write
from devices.database.tables import DEVICE_TAGS
from devices.database.tables_finding import DEVICE_ATTRIBUTES
from devices.gateways.adoption import demand_childless, demand_parentless
from devices.rows import Deed
from devices.statements import CHANGE, SOME, read_fw, replace_rows
from devices.values import attribute_rows, device_values, tag_rows
from devices.views import to_view, unknown
from wire.errors import HeadwaterError
from wire.registry import DeviceView

Change = Callable[[DeviceView], DeviceView]
Update = tuple[str, Change, Deed]


@dataclass(slots=True)
class _State:
    """A device as the transaction finds it, and as it leaves it."""

    old: DeviceView
    new: DeviceView
    fw: dict[str, Any] = field(default_factory=dict)  # columns of its firmware version, where that changes


def update_devices(transaction: Write, asked: Sequence[Update]) -> list[DeviceView | Exception]:
    """Change devices, one after the other; give what each has become, or why it stays as it was."""
    views = map(to_view, transaction.execute(SOME, {"ids": sorted({each[0] for each in asked})}).mappings())
    states = {view.id: _State(view, view) for view in views}
    told = [_attempt(transaction, states.get(each[0]), each) for each in asked]
    _write(transaction, [state for state in states.values() if state.new is not state.old])
    return told


def _attempt(transaction: Write, state: _State | None, asked: Update) -> DeviceView | Exception:
    device_id, change, deed = asked
    try:
        if state is None or state.old.tenant != deed.who.tenant:
            raise unknown(device_id)
        return _change(transaction, state, change, deed)
    except HeadwaterError as error:  # nothing of it was written
        return error


def _change(transaction: Write, state: _State, change: Change, deed: Deed) -> DeviceView:
    old, tenant = state.new, deed.who.tenant
    new = change(old)
    if new == old:
        return old
    if new.gateway != old.gateway:
        (demand_parentless if new.gateway else demand_childless)(transaction, tenant, old.id)
    if new.attributes.get("fw") != old.attributes.get("fw"):
        state.fw = read_fw(transaction, tenant, old.id, new.attributes.get("fw"))
    transaction.audit([replace(deed, detail=_difference(old, new))])
    state.new = new.model_copy(update={"updated": transaction.now_ns, "fw": state.fw.get("fw", old.fw)})
    return state.new


def _write(transaction: Write, states: Sequence[_State]) -> None:
    plain, with_fw = list[dict[str, Any]](), list[dict[str, Any]]()
    for state in states:
        values = device_values(state.new.tenant, state.new, transaction.now_ns) | state.fw
        named = {"of_tenant": values.pop("tenant"), "of_device": values.pop("id")}
        del values["created_ns"]
        (with_fw if state.fw else plain).append(named | values)
    for rows in (plain, with_fw):  # the rows of one statement have the same columns
        transaction.execute(CHANGE, rows)
    for table, to_rows in ((DEVICE_TAGS, tag_rows), (DEVICE_ATTRIBUTES, attribute_rows)):
        pairs = [(to_rows(each.old.tenant, each.old), to_rows(each.new.tenant, each.new)) for each in states]
        replace_rows(transaction, table, pairs)
    transaction.changed("device", [state.new.id for state in states])


def _difference(old: DeviceView, new: DeviceView) -> dict[str, dict[str, Any]]:
    """Give the members that differ as they were and as they are."""
    before, after = old.model_dump(), new.model_dump()
    changed = [name for name in after if before[name] != after[name]]
    return {"before": {name: before[name] for name in changed}, "after": {name: after[name] for name in changed}}
