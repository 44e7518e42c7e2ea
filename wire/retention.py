"""How long the readings of devices are kept, as the registry tells the writer (internal)."""

from __future__ import annotations

from pydantic import BaseModel


class DeviceTerm(BaseModel):
    """A device whose type says how long: whole days before today."""

    tenant: str
    device: str
    days: int


class TermPage(BaseModel):
    """Some of them; `next` is where to go on, null at the end."""

    items: list[DeviceTerm]
    next: str | None
