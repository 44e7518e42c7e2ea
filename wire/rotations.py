"""Rotations: new secrets for many devices at once, as the registry's routes show and take them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from wire.devices import Model
from wire.points import TimeNs
from wire.registry import MAX_OVERLAP_S, QueryText


class RotationCreate(Model):
    """Issue a new secret to all devices that a query finds now; their old ones end `overlap_s` later at the latest."""

    query: Annotated[QueryText, Field(min_length=1)]
    overlap_s: float = Field(default=7 * 86_400.0, ge=0, le=MAX_OVERLAP_S)


class WaitingView(BaseModel):
    """A device that has not used its new credential yet."""

    device: str
    credential: str
    online: bool
    last_seen: TimeNs | None


class WaitingPage(BaseModel):
    """Such devices in order of their ids; `next` is the cursor of the following page."""

    items: list[WaitingView]
    next: str | None
