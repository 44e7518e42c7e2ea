"""Devices and credentials as the API shows them, of rows of the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from wire.errors import NotFound
from wire.presence import PresenceState
from wire.registry import CredentialView, DeviceDetail, DeviceView


def to_view(row: Any) -> DeviceView:
    """Give a device of a row of `devices.statements.VIEW`."""
    return DeviceView(
        id=row["id"],
        tenant=row["tenant"],
        type=row["type"],
        tags=orjson.loads(row["tags"]),
        attributes=orjson.loads(row["attributes"]),
        gateway=row["gateway"],
        state="registered" if row["state"] == "active" and not row["last_seen_ns"] else row["state"],
        online=bool(row["online"]),
        presence=_presence(row),
        last_seen=row["last_seen_ns"] or None,
        fw=row["fw"],
        created=row["created_ns"],
        updated=row["updated_ns"],
    )


def to_detail(rows: Sequence[Any]) -> DeviceDetail:
    """Give a device with all that is shown of it, of the rows of `devices.statements.DETAIL`."""
    names = sorted(rows[0]["names"].split("\n")) if rows[0]["names"] else []
    held = [to_credential_view(row, "credential_") for row in rows if row["credential_id"] is not None]
    return DeviceDetail(**dict(to_view(rows[0])), parent=rows[0]["parent"], credentials=held, names=names)


def to_credential_view(row: Any, named: str = "") -> CredentialView:
    """Give a credential of a row, whose columns' names begin so."""
    return CredentialView(
        id=row[f"{named}id"],
        label=row[f"{named}label"],
        created=row[f"{named}created_ns"],
        not_before=row[f"{named}not_before_ns"],
        not_after=row[f"{named}not_after_ns"],
        last_used=row[f"{named}last_used_ns"],
    )


def _presence(row: Any) -> PresenceState:
    if row["online"]:
        return "stale" if row["stale"] else "online"
    return "offline" if row["last_seen_ns"] else "never"


def unknown(device_id: str) -> NotFound:
    """Tell that there is no such device."""
    return NotFound(f"no device {device_id!r}", code="device_not_found")
