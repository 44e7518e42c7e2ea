"""Invitations: a link by which somebody becomes an operator with a password of their own. Knows no HTTP, no SQL."""

from __future__ import annotations

from typing import Protocol

from chassis.guessing import BackOff
from chassis.tokens import hash_token, new_token
from devices.people.passwords import hash_password
from devices.people.service import demand_grantable
from devices.rows import InvitationRow, Who
from wire import clock
from wire.clock import NS_PER_S
from wire.errors import NotFound
from wire.people import InvitationAccept, InvitationCreate, InvitationCreated, InvitationView

PATH = "/invitation"


class InvitationRows(Protocol):
    """Where invitations are kept; see `devices.people.visits.InvitationStore`."""

    def list(self, tenant: str, now_ns: int) -> list[InvitationRow]: ...
    def add(self, row: InvitationRow, who: Who) -> None: ...
    def remove(self, name: str, who: Who) -> None: ...
    def accept(self, sha256: str, password_hash: str, remote_ip: str) -> tuple[str, str]: ...


class Invitations:
    """Invitations; thread-safe."""

    def __init__(self, rows: InvitationRows) -> None:
        self._rows = rows
        self._back_off = BackOff()

    def list(self, tenant: str) -> list[InvitationView]:
        """Give a tenant's open invitations."""
        return [_view(row) for row in self._rows.list(tenant, clock.now_ns())]

    def create(self, wanted: InvitationCreate, who: Who) -> InvitationCreated:
        """Invite somebody; the link is answered once.

        Raises:
            Conflict: there is an operator of that name.
            Forbidden: the role is above that of who asks.
        """
        demand_grantable(wanted.role, who)
        token, now_ns = new_token(), clock.now_ns()
        row = InvitationRow(hash_token(token), wanted.name, wanted.role, now_ns, now_ns + wanted.expires_s * NS_PER_S)
        self._rows.add(row, who)
        return InvitationCreated(**dict(_view(row)), token=token, path=f"{PATH}?token={token}")

    def revoke(self, name: str, who: Who) -> None:
        """Take an invitation back.

        Raises:
            NotFound: none of that name.
        """
        self._rows.remove(name.replace("\0", ""), who)

    def accept(self, given: InvitationAccept) -> str:
        """Use an invitation up; give the name to log in with.

        Raises:
            NotFound: it was used, taken back, or is over.
            TooManyRequests: too many wrong ones from this address.
        """
        key = ("invitation", given.remote_ip)
        self._back_off.demand(key)
        try:
            name, tenant = self._rows.accept(hash_token(given.token), hash_password(given.password), given.remote_ip)
        except NotFound:
            self._back_off.failed(key)
            raise
        return name if tenant == "default" else f"{name}@{tenant}"


def _view(row: InvitationRow) -> InvitationView:
    members = {"name": row.name, "role": row.role, "created": row.created_ns, "expires": row.expires_ns}
    return InvitationView.model_validate(members)
