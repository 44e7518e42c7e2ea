"""Erasing a device's data: what the registry asks of the writer, and what it hears back (internal)."""

from __future__ import annotations

from pydantic import BaseModel

from wire.devices import Model


class Erasure(BaseModel):
    """A device whose data must go; it has sent nothing since a time."""

    id: str
    tenant: str
    device: str
    since_ns: int


class ErasureList(BaseModel):
    """All that are asked for."""

    items: list[Erasure]


class Erased(Model):
    """How it ended: entries taken from the quarantine, or why it cannot be done."""

    quarantined: int = 0
    refusal: str | None = None
