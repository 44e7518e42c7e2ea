"""Sessions of people, and invitations: the only SQL about them beside `devices.people.store`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select

from devices.database.engine import Database, Write
from devices.database.tables import INVITATIONS, OPERATORS, SESSIONS, TENANTS
from devices.rows import Deed, InvitationRow, Who
from wire.errors import Conflict, NotFound
from wire.people import SessionView

ID_LENGTH = 16  # of the hash of a session's token: enough to name it, and it opens nothing


class SessionStore:
    """Sessions; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, tenant: str, name: str, now_ns: int, this: str = "") -> list[SessionView]:
        """Give a person's sessions, newest first; `this` is the hash of the asker's own.

        Raises:
            NotFound: no such person.
        """
        mine = and_(SESSIONS.c.tenant == tenant, SESSIONS.c.operator == name, SESSIONS.c.expires_ns > now_ns)
        query = select(SESSIONS).where(mine).order_by(SESSIONS.c.created_ns.desc(), SESSIONS.c.sha256)
        with self._database.read() as connection:
            _demand_person(connection, tenant, name)
            return [_to_session(row, this) for row in connection.execute(query).mappings()]

    def end(self, name: str, session_id: str, who: Who) -> None:
        """End one session of a person, or all of them by an empty id.

        Raises:
            NotFound: no such person or session.
        """
        mine = and_(SESSIONS.c.tenant == who.tenant, SESSIONS.c.operator == name)
        if session_id:
            mine = and_(mine, SESSIONS.c.sha256.startswith(session_id, autoescape=True))
        with self._database.write() as transaction:
            _demand_person(transaction.connection, who.tenant, name)
            ended = transaction.execute(delete(SESSIONS).where(mine)).rowcount
            if not ended and session_id:
                raise NotFound("no such session", code="session_not_found")
            transaction.changed("token", [name])
            transaction.audit([Deed(who, "session.end", name, {"sessions": ended})])


class InvitationStore:
    """Invitations; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, tenant: str, now_ns: int) -> list[InvitationRow]:
        """Give a tenant's open invitations in order of their names."""
        mine = and_(INVITATIONS.c.tenant == tenant, INVITATIONS.c.expires_ns > now_ns)
        with self._database.read() as connection:
            rows = connection.execute(select(INVITATIONS).where(mine).order_by(INVITATIONS.c.name)).mappings()
            return [_to_invitation(row) for row in rows]

    def add(self, row: InvitationRow, who: Who) -> None:
        """Invite somebody, in the place of an older invitation of that name.

        Raises:
            Conflict: there is an operator of that name.
        """
        named = and_(OPERATORS.c.tenant == who.tenant, OPERATORS.c.name == row.name)
        with self._database.write() as transaction:
            if transaction.execute(select(OPERATORS.c.name).where(named)).first():
                raise Conflict(f"operator {row.name} exists already", code="operator_exists", fields=["name"])
            older = and_(INVITATIONS.c.tenant == who.tenant, INVITATIONS.c.name == row.name)
            transaction.execute(delete(INVITATIONS).where(older))
            values = {name: getattr(row, name) for name in InvitationRow.__dataclass_fields__}
            transaction.execute(insert(INVITATIONS).values(tenant=who.tenant, **values))
            detail = {"role": row.role, "expires_ns": row.expires_ns}
            transaction.audit([Deed(who, "invitation.create", row.name, detail)])

    def remove(self, name: str, who: Who) -> None:
        """Take an invitation back.

        Raises:
            NotFound: none of that name.
        """
        named = and_(INVITATIONS.c.tenant == who.tenant, INVITATIONS.c.name == name)
        with self._database.write() as transaction:
            if not transaction.execute(delete(INVITATIONS).where(named)).rowcount:
                raise NotFound(f"no invitation of {name!r}", code="invitation_not_found")
            transaction.audit([Deed(who, "invitation.revoke", name)])

    def accept(self, sha256: str, password_hash: str, remote_ip: str) -> tuple[str, str]:
        """Make an operator of whom an invitation is for, and use it up; give name and tenant.

        Raises:
            NotFound: no such invitation, it is over, or its tenant is not active.
            Conflict: there is an operator of that name by now.
        """
        with self._database.write() as transaction:
            row = take_invitation(transaction, sha256)
            members = {key: row[key] for key in ("tenant", "name", "role")}
            person = insert(OPERATORS).values(
                **members, password_hash=password_hash, created_ns=transaction.now_ns, must_change=False
            )
            transaction.execute(person)
            who = Who(f"operator:{row['name']}", remote_ip, row["tenant"])
            transaction.audit([Deed(who, "invitation.accept", row["name"], {"role": row["role"]})])
        return row["name"], row["tenant"]


def take_invitation(transaction: Write, sha256: str) -> Any:
    """Use an invitation up within a transaction; give its row.

    Raises:
        NotFound: no such invitation, it is over, or its tenant is not active.
    """
    found = select(INVITATIONS).join(TENANTS, TENANTS.c.id == INVITATIONS.c.tenant)
    open_ = and_(INVITATIONS.c.sha256 == sha256, TENANTS.c.state == "active")
    row = transaction.execute(found.where(open_)).mappings().first()
    if row is None or row["expires_ns"] <= transaction.now_ns:
        raise NotFound("this invitation was used, taken back, or is over", code="invitation_not_found")
    transaction.execute(delete(INVITATIONS).where(INVITATIONS.c.sha256 == sha256))
    return row


def _demand_person(connection: Connection, tenant: str, name: str) -> None:
    named = and_(OPERATORS.c.tenant == tenant, OPERATORS.c.name == name)
    if connection.execute(select(OPERATORS.c.name).where(named)).first() is None:
        raise NotFound(f"no operator {name[:80]!r}", code="operator_not_found")


def _to_session(row: Any, this: str) -> SessionView:
    return SessionView(
        id=row["sha256"][:ID_LENGTH],
        name=row["operator"],
        created=row["created_ns"],
        expires=row["expires_ns"],
        remote_ip=row["remote_ip"],
        is_this=row["sha256"] == this,
    )


def _to_invitation(row: Any) -> InvitationRow:
    return InvitationRow(**{name: row[name] for name in InvitationRow.__dataclass_fields__})
