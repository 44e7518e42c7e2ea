"""API tokens, persons who log in, and their sessions: the only SQL about them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, update

from devices.database.engine import Database, Write
from devices.database.tables import OPERATORS, SESSIONS, TOKENS
from devices.rows import Deed, OperatorRow, TokenRow, Who
from wire.devices import TENANT, Principal
from wire.errors import Conflict, NotFound


class TokenStore:
    """API tokens and sessions; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[TokenRow]:
        """Give all API tokens, oldest first."""
        query = select(TOKENS).where(TOKENS.c.tenant == TENANT).order_by(TOKENS.c.created_ns, TOKENS.c.id)
        with self._database.read() as connection:
            return [_to_token(row) for row in connection.execute(query).mappings()]

    def add(self, token: TokenRow, who: Who, *, replaces: bool = False) -> None:
        """Add an API token; with `replaces`, in the place of one of the same name.

        Raises:
            Conflict: the name is taken.
        """
        named = and_(TOKENS.c.tenant == TENANT, TOKENS.c.name == token.name)
        with self._database.write() as transaction:
            if replaces:
                transaction.execute(delete(TOKENS).where(named))
            if transaction.execute(select(TOKENS.c.id).where(named)).first():
                raise Conflict(f"a token named {token.name} exists already", code="token_exists", fields=["name"])
            values = {name: getattr(token, name) for name in TokenRow.__dataclass_fields__}
            transaction.execute(insert(TOKENS).values(tenant=TENANT, **values))
            transaction.changed("token", [token.id])
            detail = {"id": token.id, "role": token.role, "expires_ns": token.expires_ns}
            transaction.audit([Deed(who, "token.create", token.name, detail)])

    def remove(self, id_or_name: str, who: Who) -> None:
        """Revoke the token of an id or, failing that, of a name.

        Raises:
            NotFound: neither exists.
        """
        with self._database.write() as transaction:
            either = or_(TOKENS.c.id == id_or_name, TOKENS.c.name == id_or_name)
            query = select(TOKENS.c.id, TOKENS.c.name).where(TOKENS.c.tenant == TENANT, either)
            rows = transaction.execute(query).all()
            if not rows:
                raise NotFound(f"no token {id_or_name!r}", code="token_not_found")
            token_id, name = next((row for row in rows if row[0] == id_or_name), rows[0])
            transaction.execute(delete(TOKENS).where(TOKENS.c.id == token_id))
            transaction.changed("token", [token_id])
            transaction.audit([Deed(who, "token.revoke", name, {"id": token_id})])

    def principal_of(self, sha256: str, now_ns: int) -> Principal | None:
        """Tell whose token or session this is; None when there is none, or it is over."""
        session = select(OPERATORS.c.name, OPERATORS.c.role, SESSIONS.c.expires_ns).join_from(
            SESSIONS,
            OPERATORS,
            and_(SESSIONS.c.tenant == OPERATORS.c.tenant, SESSIONS.c.operator == OPERATORS.c.name),
        )
        with self._database.read() as connection:
            row = connection.execute(select(TOKENS).where(TOKENS.c.sha256 == sha256)).mappings().first()
            if row is not None:
                return _to_principal(f"token:{row['id']}", row, now_ns)
            row = connection.execute(session.where(SESSIONS.c.sha256 == sha256)).mappings().first()
        return None if row is None else _to_principal(f"operator:{row['name']}", row, now_ns)

    def end_session(self, sha256: str) -> str | None:
        """Delete a session; give whose it was."""
        with self._database.write() as transaction:
            name: str | None = transaction.execute(
                select(SESSIONS.c.operator).where(SESSIONS.c.sha256 == sha256)
            ).scalar()
            if name is not None:
                transaction.execute(delete(SESSIONS).where(SESSIONS.c.sha256 == sha256))
                transaction.changed("token", [name])
                transaction.audit([Deed(Who(f"operator:{name}"), "operator.logout", name)])
        return name


class OperatorStore:
    """Persons who log in; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[OperatorRow]:
        """Give all operators in order of their names."""
        query = select(OPERATORS).where(OPERATORS.c.tenant == TENANT).order_by(OPERATORS.c.name)
        with self._database.read() as connection:
            return [_to_operator(row) for row in connection.execute(query).mappings()]

    def find(self, name: str) -> OperatorRow | None:
        """Give one operator, if there is one of that name."""
        with self._database.read() as connection:
            row = connection.execute(select(OPERATORS).where(_named(name))).mappings().first()
        return None if row is None else _to_operator(row)

    def add(self, operator: OperatorRow, who: Who) -> None:
        """Add an operator.

        Raises:
            Conflict: the name is taken.
        """
        with self._database.write() as transaction:
            if transaction.execute(select(OPERATORS.c.name).where(_named(operator.name))).first():
                raise Conflict(f"operator {operator.name} exists already", code="operator_exists", fields=["name"])
            values = {name: getattr(operator, name) for name in OperatorRow.__dataclass_fields__}
            transaction.execute(insert(OPERATORS).values(tenant=TENANT, **values))
            transaction.audit([Deed(who, "operator.create", operator.name, {"role": operator.role})])

    def update(self, name: str, values: dict[str, str], who: Who) -> None:
        """Change password hash or role; all sessions of the operator end.

        Raises:
            NotFound: no such operator.
            Conflict: the last admin would be gone.
        """
        with self._database.write() as transaction:
            if not transaction.execute(update(OPERATORS).where(_named(name)).values(**values)).rowcount:
                raise NotFound(f"no operator {name!r}", code="operator_not_found")
            _keep_an_admin(transaction)
            transaction.execute(delete(SESSIONS).where(SESSIONS.c.tenant == TENANT, SESSIONS.c.operator == name))
            transaction.changed("token", [name])
            transaction.audit([Deed(who, "operator.update", name, {"changed": sorted(values)})])

    def remove(self, name: str, who: Who) -> None:
        """Delete an operator and all their sessions.

        Raises:
            NotFound: no such operator.
            Conflict: the last admin would be gone.
        """
        with self._database.write() as transaction:
            if not transaction.execute(delete(OPERATORS).where(_named(name))).rowcount:
                raise NotFound(f"no operator {name!r}", code="operator_not_found")
            _keep_an_admin(transaction)
            transaction.changed("token", [name])
            transaction.audit([Deed(who, "operator.delete", name)])

    def begin_session(self, name: str, sha256: str, expires_ns: int, who: Who) -> None:
        """Remember a session of an operator; sessions that are over are deleted."""
        with self._database.write() as transaction:
            transaction.execute(delete(SESSIONS).where(SESSIONS.c.expires_ns <= transaction.now_ns))
            values = {"sha256": sha256, "tenant": TENANT, "operator": name, "expires_ns": expires_ns}
            transaction.execute(insert(SESSIONS).values(**values))
            transaction.audit([Deed(who, "operator.login", name)])


def _keep_an_admin(transaction: Write) -> None:
    admins = select(func.count()).select_from(OPERATORS).where(OPERATORS.c.role == "admin")
    if not transaction.execute(admins).scalar_one():
        raise Conflict("the last operator with the role admin cannot go", code="last_admin")


def _to_principal(key: str, row: Any, now_ns: int) -> Principal | None:
    if row["expires_ns"] is not None and row["expires_ns"] <= now_ns:
        return None
    return Principal(id=key, name=row["name"], role=row["role"], expires=row["expires_ns"])


def _named(name: str) -> Any:
    return and_(OPERATORS.c.tenant == TENANT, OPERATORS.c.name == name)


def _to_token(row: Any) -> TokenRow:
    return TokenRow(**{name: row[name] for name in TokenRow.__dataclass_fields__})


def _to_operator(row: Any) -> OperatorRow:
    return OperatorRow(**{name: row[name] for name in OperatorRow.__dataclass_fields__})
