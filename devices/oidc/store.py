"""Accounts of people who log in by a provider: the only SQL about them beside `devices.people`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, delete, insert, select, update

from devices.database.engine import Database, Write
from devices.database.tables import OPERATORS, SESSIONS, TENANTS
from devices.oidc.service import Person
from devices.people.passwords import NO_PASSWORD
from devices.people.store import keep_a_platform, named, open_session, to_operator
from devices.people.visits import take_invitation
from devices.rows import Deed, OperatorRow, Who
from wire.errors import Conflict, Forbidden


class PeopleStore:
    """Accounts by subject; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enter(self, person: Person, sha256: str, expires_ns: int) -> OperatorRow:
        """Begin a session in the account of a person, made now when it may be.

        Raises:
            Forbidden: there is no account and none may be made, or it is in another tenant than the provider says.
            Conflict: an account of that name is somebody else's; or the last of the platform would be gone.
            NotFound: the invitation was used, taken back, or is over.
        """
        with self._database.write() as transaction:
            row = _find(transaction, person.subject) or _make(transaction, person)
            tenant, who = row["tenant"], Who(f"operator:{row['name']}", person.remote_ip, row["tenant"])
            if person.tenant not in (None, tenant):
                raise Forbidden("the account is in another tenant than the provider says", code="oidc_no_tenant")
            if transaction.execute(select(TENANTS.c.state).where(TENANTS.c.id == tenant)).scalar() != "active":
                raise Forbidden("the tenant is not active", code="oidc_no_tenant")
            operator = to_operator(row)
            if person.role not in (None, operator.role):
                _change_role(transaction, operator, str(person.role), who)
            open_session(transaction, operator.name, sha256, expires_ns, who, {"by": "oidc"})
            return to_operator(_find(transaction, person.subject))

    def end_sessions(self, subject: str, remote_ip: str) -> None:
        """End the sessions of somebody to whom the provider gives no role any more."""
        with self._database.write() as transaction:
            row = _find(transaction, subject)
            if row is None:
                return
            mine = and_(SESSIONS.c.tenant == row["tenant"], SESSIONS.c.operator == row["name"])
            ended = transaction.execute(delete(SESSIONS).where(mine)).rowcount
            transaction.changed("token", [row["name"]])
            who = Who(f"operator:{row['name']}", remote_ip, row["tenant"])
            transaction.audit([Deed(who, "session.end", row["name"], {"sessions": ended, "by": "oidc"})])


def _find(transaction: Write, subject: str) -> Any:
    return transaction.execute(select(OPERATORS).where(OPERATORS.c.subject == subject)).mappings().first()


def _make(transaction: Write, person: Person) -> Any:
    if person.invitation is not None:
        invited = take_invitation(transaction, person.invitation)
        tenant, name, role, by = invited["tenant"], invited["name"], invited["role"], "invitation.accept"
    elif person.first is None:
        raise Forbidden("there is no account for you here; ask for an invitation", code="oidc_not_invited")
    elif person.name is None:
        raise Forbidden("the provider does not say what to call you", code="oidc_no_name")
    else:
        (tenant, role), name, by = person.first, person.name, "operator.create"
        if transaction.execute(select(TENANTS.c.id).where(TENANTS.c.id == tenant)).first() is None:
            raise Forbidden("the provider names a tenant that does not exist here", code="oidc_no_tenant")
    if transaction.execute(select(OPERATORS.c.name).where(named(tenant, name))).first():
        raise Conflict(f"there is another account of the name {name}", code="oidc_name_taken")
    values = {"tenant": tenant, "name": name, "role": role, "password_hash": NO_PASSWORD, "subject": person.subject}
    transaction.execute(insert(OPERATORS).values(**values, created_ns=transaction.now_ns, must_change=False))
    who = Who(f"operator:{name}", person.remote_ip, tenant)
    transaction.audit([Deed(who, by, name, {"role": role, "subject": person.subject})])
    return _find(transaction, person.subject)


def _change_role(transaction: Write, operator: OperatorRow, role: str, who: Who) -> None:
    mine = named(who.tenant, operator.name)
    transaction.execute(update(OPERATORS).where(mine).values(role=role))
    keep_a_platform(transaction, operator.role)
    transaction.changed("token", [operator.name])
    states = {"changed": ["role"], "before": {"role": operator.role}, "after": {"role": role}, "by": "oidc"}
    transaction.audit([Deed(who, "operator.update", operator.name, states)])
