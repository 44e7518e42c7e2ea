"""API tokens, persons who log in, and their sessions: the only SQL about them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from devices.database.engine import Database, Write
from devices.database.tables import OPERATORS, SESSIONS, TENANTS, TOKENS
from devices.groups.store import demand_sense
from devices.rows import Deed, OperatorRow, TokenRow, Who
from wire.devices import Principal
from wire.errors import Conflict, NotFound
from wire.tenants import Limits

_SESSION_OF = and_(SESSIONS.c.tenant == OPERATORS.c.tenant, SESSIONS.c.operator == OPERATORS.c.name)


class TokenStore:
    """API tokens and sessions; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def writes(self) -> int:
        """Count the transactions of this process that changed what `principal_of` says."""
        return self._database.token_writes

    def list(self, tenant: str) -> list[TokenRow]:
        """Give all API tokens of a tenant, oldest first."""
        query = select(TOKENS).where(TOKENS.c.tenant == tenant).order_by(TOKENS.c.created_ns, TOKENS.c.id)
        with self._database.read() as connection:
            return [_to_token(row) for row in connection.execute(query).mappings()]

    def add(self, token: TokenRow, who: Who, *, replaces: bool = False) -> None:
        """Add an API token; with `replaces`, in the place of one of the same name.

        Raises:
            Conflict: the name is taken.
            BadQuery: its query names a group that does not exist.
        """
        named = and_(TOKENS.c.tenant == who.tenant, TOKENS.c.name == token.name)
        with self._database.write() as transaction:
            if replaces:
                transaction.execute(delete(TOKENS).where(named))
            if transaction.execute(select(TOKENS.c.id).where(named)).first():
                raise Conflict(f"a token named {token.name} exists already", code="token_exists", fields=["name"])
            demand_sense(transaction.connection, who.tenant, token.devices)
            values = {name: getattr(token, name) for name in TokenRow.__dataclass_fields__}
            transaction.execute(insert(TOKENS).values(tenant=who.tenant, **values))
            transaction.changed("token", [token.id])
            detail = {"id": token.id, "role": token.role, "expires_ns": token.expires_ns, "scope": token.scope.split()}
            detail |= {"devices": token.devices} if token.devices else {}
            transaction.audit([Deed(who, "token.create", token.name, detail)])

    def find(self, tenant: str, id_or_name: str) -> TokenRow:
        """Give the token of an id or, failing that, of a name.

        Raises:
            NotFound: neither exists.
        """
        either = or_(TOKENS.c.id == id_or_name, TOKENS.c.name == id_or_name)
        with self._database.read() as connection:
            rows = connection.execute(select(TOKENS).where(TOKENS.c.tenant == tenant, either)).mappings().all()
        if not rows:
            raise NotFound(f"no token {id_or_name!r}", code="token_not_found")
        return _to_token(next((row for row in rows if row["id"] == id_or_name), rows[0]))

    def remove(self, token: TokenRow, who: Who) -> None:
        """Revoke a token.

        Raises:
            NotFound: it is gone already.
        """
        mine = and_(TOKENS.c.tenant == who.tenant, TOKENS.c.id == token.id)
        with self._database.write() as transaction:
            if not transaction.execute(delete(TOKENS).where(mine)).rowcount:
                raise NotFound(f"no token {token.id!r}", code="token_not_found")
            transaction.changed("token", [token.id])
            transaction.audit([Deed(who, "token.revoke", token.name, {"id": token.id})])

    def mark_used(self, token_id: str, now_ns: int) -> None:
        """Note when a token was used last."""
        with self._database.write("presence") as transaction:
            transaction.execute(update(TOKENS).where(TOKENS.c.id == token_id).values(last_used_ns=now_ns))

    def note_visit(self, visitor: Principal, remote_ip: str) -> None:
        """Write down in a tenant's audit that somebody of the platform acts in it, be it only to read."""
        with self._database.write() as transaction:
            who = Who(visitor.signature, remote_ip, visitor.tenant)
            transaction.audit([Deed(who, "tenant.visit", visitor.tenant)])

    def principal_of(self, sha256: str, now_ns: int, tenant: str | None = None) -> Principal | None:
        """Tell whose token or session this is; None when there is none, it is over, or may not act in `tenant`."""
        session = select(OPERATORS, SESSIONS.c.expires_ns).join_from(SESSIONS, OPERATORS, _SESSION_OF)
        with self._database.look() as connection:
            row = connection.execute(select(TOKENS).where(TOKENS.c.sha256 == sha256)).mappings().first()
            kind = "token"
            if row is None:
                row = connection.execute(session.where(SESSIONS.c.sha256 == sha256)).mappings().first()
                kind = "operator"
            if row is None or (row["expires_ns"] is not None and row["expires_ns"] <= now_ns):
                return None
            key = f"{kind}:{row['id'] if kind == 'token' else row['name']}"
            members = {name: row[name] for name in ("name", "role", "tenant")} | {"expires": row["expires_ns"]}
            found = Principal(id=key, **members, **(_limits_of(row) if kind == "token" else _state_of(row)))
            return _acting(connection, found, tenant)

    def end_session(self, sha256: str, remote_ip: str) -> str | None:
        """Delete a session; give whose it was."""
        with self._database.write() as transaction:
            query = select(SESSIONS.c.operator, SESSIONS.c.tenant).where(SESSIONS.c.sha256 == sha256)
            found = transaction.execute(query).first()
            if found is None:
                return None
            name, tenant = found
            transaction.execute(delete(SESSIONS).where(SESSIONS.c.sha256 == sha256))
            transaction.changed("token", [name])
            transaction.audit([Deed(Who(f"operator:{name}", remote_ip, tenant), "operator.logout", name)])
        return str(name)


class OperatorStore:
    """Persons who log in; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, tenant: str) -> list[OperatorRow]:
        """Give all operators of a tenant in order of their names."""
        query = select(OPERATORS).where(OPERATORS.c.tenant == tenant).order_by(OPERATORS.c.name)
        with self._database.read() as connection:
            return [to_operator(row) for row in connection.execute(query).mappings()]

    def find(self, tenant: str, name: str) -> OperatorRow | None:
        """Give one operator, if there is one of that name."""
        with self._database.read() as connection:
            row = connection.execute(select(OPERATORS).where(named(tenant, name))).mappings().first()
        return None if row is None else to_operator(row)

    def add(self, operator: OperatorRow, who: Who) -> None:
        """Add an operator.

        Raises:
            Conflict: the name is taken.
        """
        with self._database.write() as transaction:
            if transaction.execute(select(OPERATORS.c.name).where(named(who.tenant, operator.name))).first():
                raise Conflict(f"operator {operator.name} exists already", code="operator_exists", fields=["name"])
            values = {name: getattr(operator, name) for name in OperatorRow.__dataclass_fields__}
            transaction.execute(insert(OPERATORS).values(tenant=who.tenant, **values))
            transaction.audit([Deed(who, "operator.create", operator.name, {"role": operator.role})])

    def update(self, name: str, values: dict[str, Any], who: Who, *, kept: str = "") -> None:
        """Change password hash, role or both; the operator's sessions end, but for that of the hash `kept`.

        Raises:
            NotFound: no such operator.
            Conflict: the last of the platform would be gone.
        """
        with self._database.write() as transaction:
            old = transaction.execute(select(OPERATORS).where(named(who.tenant, name))).mappings().first()
            if old is None:
                raise NotFound(f"no operator {name!r}", code="operator_not_found")
            transaction.execute(update(OPERATORS).where(named(who.tenant, name)).values(**values))
            keep_a_platform(transaction, old["role"])
            mine = and_(SESSIONS.c.tenant == who.tenant, SESSIONS.c.operator == name, SESSIONS.c.sha256 != kept)
            transaction.execute(delete(SESSIONS).where(mine))
            transaction.changed("token", [name])
            shown = [each for each in values if each != "password_hash"]
            states = {"before": {key: old[key] for key in shown}, "after": {key: values[key] for key in shown}}
            transaction.audit([Deed(who, "operator.update", name, {"changed": sorted(values)} | states)])

    def rehash(self, name: str, hashed: str, who: Who) -> None:
        """Put a newer hash of the same password in the place of the old one."""
        with self._database.write() as transaction:
            transaction.execute(update(OPERATORS).where(named(who.tenant, name)).values(password_hash=hashed))

    def remove(self, name: str, who: Who) -> None:
        """Delete an operator and all their sessions.

        Raises:
            NotFound: no such operator.
            Conflict: the last of the platform would be gone.
        """
        with self._database.write() as transaction:
            role = transaction.execute(select(OPERATORS.c.role).where(named(who.tenant, name))).scalar()
            if role is None:
                raise NotFound(f"no operator {name!r}", code="operator_not_found")
            transaction.execute(delete(OPERATORS).where(named(who.tenant, name)))
            keep_a_platform(transaction, role)
            transaction.changed("token", [name])
            transaction.audit([Deed(who, "operator.delete", name)])

    def begin_session(self, name: str, sha256: str, expires_ns: int, who: Who) -> None:
        """Remember a session of an operator; sessions that are over are deleted."""
        with self._database.write() as transaction:
            open_session(transaction, name, sha256, expires_ns, who)


def _acting(connection: Connection, found: Principal, tenant: str | None) -> Principal | None:
    """Let somebody act in the tenant they ask for; only the platform may act in another than the own."""
    is_away = tenant is not None and tenant != found.tenant
    if is_away and found.role != "platform":
        return None
    where = tenant if tenant is not None else found.tenant
    row = connection.execute(select(TENANTS.c.state, TENANTS.c.limits).where(TENANTS.c.id == where)).first()
    if row is None or (row.state != "active" and not (is_away and row.state == "suspended")):
        return None
    readers = Limits.model_validate_json(row.limits).feed_readers
    away = {"tenant": tenant, "home": found.tenant} if is_away else {}
    return found.model_copy(update=away | {"feed_readers": readers})


def open_session(
    transaction: Write, name: str, sha256: str, expires_ns: int, who: Who, detail: dict[str, Any] | None = None
) -> None:
    """Remember a session within a transaction; those that are over are deleted."""
    transaction.execute(delete(SESSIONS).where(SESSIONS.c.expires_ns <= transaction.now_ns))
    values = {"sha256": sha256, "tenant": who.tenant, "operator": name, "expires_ns": expires_ns}
    place = {"created_ns": transaction.now_ns, "remote_ip": who.remote_ip}
    transaction.execute(insert(SESSIONS).values(**values, **place))
    seen = update(OPERATORS).where(named(who.tenant, name)).values(last_login_ns=transaction.now_ns)
    transaction.execute(seen)
    transaction.audit([Deed(who, "operator.login", name, detail or {})])


def keep_a_platform(transaction: Write, role: str) -> None:
    """Refuse a change that took the role from the last who had it. Raises Conflict."""
    if role != "platform":
        return
    left = select(func.count()).select_from(OPERATORS).where(OPERATORS.c.role == "platform")
    if not transaction.execute(left).scalar_one():
        raise Conflict("the last operator with the role platform cannot go", code="last_admin")


def named(tenant: str, name: str) -> Any:
    """Give the condition that finds one operator."""
    return and_(OPERATORS.c.tenant == tenant, OPERATORS.c.name == name)


def _limits_of(token: Any) -> dict[str, Any]:
    return {"scope": token["scope"].split(), "devices": token["devices"]}


def _state_of(operator: Any) -> dict[str, Any]:
    return {"must_change": operator["must_change"]}


def _to_token(row: Any) -> TokenRow:
    return TokenRow(**{name: row[name] for name in TokenRow.__dataclass_fields__})


def to_operator(row: Any) -> OperatorRow:
    """Read a row of the operators."""
    return OperatorRow(**{name: row[name] for name in OperatorRow.__dataclass_fields__})
