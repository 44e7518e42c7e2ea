"""Bodies about people and programs: who asks, sessions, invitations, passwords."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from wire.devices import Model, Name, Role, Text
from wire.points import TimeNs
from wire.registry import LoginAnswer, Password

MAX_INVITED_S = 30 * 86_400


class Me(BaseModel):
    """Who asks."""

    name: str
    role: Role
    tenant: str
    home: str | None
    scope: list[str]
    devices: str
    must_change: bool


class PasswordChange(Model):
    """A person's own new password, and the old one."""

    old: Annotated[str, Field(max_length=1024)]
    new: Password


class SessionView(BaseModel):
    """A session of a person; `id` names it and opens nothing."""

    id: str
    name: str
    created: TimeNs
    expires: TimeNs
    remote_ip: str
    is_this: bool


class SessionList(BaseModel):
    """Sessions, newest first."""

    items: list[SessionView]


class InvitationCreate(Model):
    """Somebody who may choose a password of their own by a link."""

    name: Name
    role: Role
    expires_s: Annotated[int, Field(ge=60, le=MAX_INVITED_S)] = 3 * 86_400


class InvitationView(BaseModel):
    """An invitation that is open."""

    name: str
    role: Role
    created: TimeNs
    expires: TimeNs


class InvitationCreated(InvitationView):
    """An invitation with its link, answered once."""

    token: str
    path: str


class InvitationList(BaseModel):
    """Open invitations."""

    items: list[InvitationView]


class InvitationAccept(Model):
    """The token of the link, and the password that its bearer chooses."""

    token: Text
    password: Password
    remote_ip: Text = ""


class OidcBegin(Model):
    """A log-in by the provider: where to go afterwards, and the invitation by whose link it began."""

    next: Annotated[str, Field(max_length=2_000)] = "/"
    invitation: Text = ""


class OidcBegun(BaseModel):
    """Where to send the browser, and what it has to bring back within so many seconds."""

    url: str
    attempt: str
    seconds: int


class OidcFinish(Model):
    """What a browser brought back from the provider."""

    attempt: Annotated[str, Field(max_length=4_096)]
    state: Annotated[str, Field(max_length=512)]
    code: Annotated[str, Field(max_length=4_096)] = ""
    error: Annotated[str, Field(max_length=512)] = ""
    iss: Annotated[str, Field(max_length=512)] | None = None
    remote_ip: Text = ""


class OidcSession(LoginAnswer):
    """A session begun by the provider's word."""

    next: str


class OidcLeft(BaseModel):
    """Where to log out at the provider; None: it has no such page."""

    url: str | None
