"""Operators: API tokens, persons who log in, sessions, and the back-off against guessing. Knows no HTTP and no SQL."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import Any, Protocol, cast

from chassis import parking
from chassis.guessing import BackOff
from chassis.tokens import hash_token, new_token, split_tenant
from devices.metrics import LOGIN_FAILURES
from devices.people.guessing import FREE_OF_ADDRESS, Checks
from devices.people.passwords import NO_PASSWORD, hash_password, is_outdated, is_password, nobodys
from devices.rows import SYSTEM, OperatorRow, TokenRow, Who
from wire import clock
from wire.clock import NS_PER_S
from wire.devices import TENANT, Principal, Role, allows
from wire.errors import Conflict, Forbidden, Unauthorized, Unprocessable
from wire.people import PasswordChange
from wire.registry import Login, LoginAnswer, OperatorCreate, OperatorPatch, TokenCreate, TokenCreated

SESSION_S = 12 * 3600
USED_S = 60
VISIT_S = 600  # how long somebody of the platform is within a tenant by one audit entry
MAX_USED = 10_000
FRESH_S = 0.5
MAX_KNOWN = 1_000
BOOTSTRAP = "bootstrap"
FIRST_OPERATOR = "admin"


class TokenRows(Protocol):
    """Where tokens and sessions are kept; see `devices.people.store.TokenStore`."""

    def list(self, tenant: str) -> list[TokenRow]: ...
    def add(self, token: TokenRow, who: Who, *, replaces: bool = False) -> None: ...
    def find(self, tenant: str, id_or_name: str) -> TokenRow: ...
    def remove(self, token: TokenRow, who: Who) -> None: ...
    def mark_used(self, token_id: str, now_ns: int) -> None: ...
    def note_visit(self, visitor: Principal, remote_ip: str) -> None: ...
    def principal_of(self, sha256: str, now_ns: int, tenant: str | None = None) -> Principal | None: ...
    def end_session(self, sha256: str, remote_ip: str) -> str | None: ...
    @property
    def writes(self) -> int: ...


class OperatorRows(Protocol):
    """Where operators are kept; see `devices.people.store.OperatorStore`."""

    def list(self, tenant: str) -> list[OperatorRow]: ...
    def find(self, tenant: str, name: str) -> OperatorRow | None: ...
    def add(self, operator: OperatorRow, who: Who) -> None: ...
    def update(self, name: str, values: dict[str, Any], who: Who, *, kept: str = "") -> None: ...
    def rehash(self, name: str, hashed: str, who: Who) -> None: ...
    def remove(self, name: str, who: Who) -> None: ...
    def begin_session(self, name: str, sha256: str, expires_ns: int, who: Who) -> None: ...


class Tokens:
    """API tokens and sessions; thread-safe. A chassis.tokens.TokenChecker.

    What `check` found is good for FRESH_S, unless this process changes a token meanwhile: revoking works at once here,
    and in the service's other processes after FRESH_S. `verify` always asks, since other services remember its answer.
    """

    def __init__(self, tokens: TokenRows) -> None:
        self._tokens = tokens
        # token -> seen when (monotonic s), count of writes before it was looked up, whose it is
        self._known: dict[str, tuple[float, int, Principal]] = {}  # each access is one step: it needs no lock
        self._used_ns: dict[str, int] = {}  # when each use was written down; a lost update costs one write
        self._visited_ns: dict[tuple[str, str], int] = {}  # the same for visits: who, tenant

    def bootstrap(self, token: str) -> None:
        """Make the installation's own token known as one of the platform, in the place of an older one."""
        if token and self.check(token) is None:
            row = TokenRow(_new_id(), BOOTSTRAP, "platform", hash_token(token), clock.now_ns())
            self._tokens.add(row, Who(SYSTEM), replaces=True)

    def check(self, token: str, remote_ip: str = "") -> Principal | None:
        """Tell who presents a token, in which tenant."""
        key, now_s, writes = hash_token(token), time.monotonic(), self._tokens.writes
        known = self._known.get(key)
        if known is not None and known[1] == writes and now_s - known[0] < FRESH_S and not _is_over(known[2]):
            return known[2]
        secret, tenant = split_tenant(token)
        found = parking.aside(self.verify, hash_token(secret), tenant, remote_ip)
        if found is not None:
            self._remember(key, (now_s, writes, found))
        return found

    def verify(self, sha256: str, tenant: str | None = None, remote_ip: str = "") -> Principal | None:
        """Tell whose token has this hash; None also when they may not act in the tenant that is named."""
        now_ns = clock.now_ns()
        found = self._tokens.principal_of(sha256, now_ns, _plain(tenant) if tenant is not None else None)
        if found is not None and found.id.startswith("token:"):
            self._note_use(found.id.removeprefix("token:"), now_ns)
        if found is not None and found.home is not None:
            self._note_visit(found, remote_ip, now_ns)
        return found

    def _remember(self, key: str, known: tuple[float, int, Principal]) -> None:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[key] = known

    def create(self, wanted: TokenCreate, who: Who) -> TokenCreated:
        """Make an API token.

        Raises:
            Conflict: the name is taken.
            Unprocessable: it would be over already.
            BadQuery: the query of its devices cannot be read.
            Forbidden: the role is above that of who asks.
        """
        demand_grantable(wanted.role, who)
        now_ns = clock.now_ns()
        if wanted.expires is not None and wanted.expires <= now_ns:
            raise Unprocessable("expires must be later than now", fields=["expires"])
        token = new_token()
        scope = " ".join(dict.fromkeys(wanted.scope))
        devices = wanted.devices.strip()
        row = TokenRow(_new_id(), wanted.name, wanted.role, hash_token(token), now_ns, wanted.expires, scope, devices)
        self._tokens.add(row, who)
        members = wanted.model_dump(include={"name", "role", "expires", "scope"})
        return TokenCreated(id=row.id, created=now_ns, token=token, devices=devices, **members)

    def list(self, tenant: str) -> list[TokenRow]:
        """Give all API tokens of a tenant, oldest first."""
        return self._tokens.list(tenant)

    def revoke(self, id_or_name: str, who: Who) -> None:
        """Revoke an API token.

        Raises:
            NotFound: no token of that id or name.
            Forbidden: its role is above that of who asks.
        """
        token = self._tokens.find(who.tenant, _plain(id_or_name))
        _demand_rank(token.role, who)
        self._tokens.remove(token, who)

    def _note_use(self, token_id: str, now_ns: int) -> None:
        """Write a use down, once in USED_S: last use is told to the minute, and a busy token costs no more."""
        if now_ns - self._used_ns.get(token_id, 0) < USED_S * NS_PER_S:
            return
        if len(self._used_ns) >= MAX_USED:
            self._used_ns.clear()
        self._used_ns[token_id] = now_ns
        self._tokens.mark_used(token_id, now_ns)

    def _note_visit(self, visitor: Principal, remote_ip: str, now_ns: int) -> None:
        """Audit that somebody of the platform acts in another's tenant, before they see anything of it."""
        key = visitor.signature, visitor.tenant
        if now_ns - self._visited_ns.get(key, 0) < VISIT_S * NS_PER_S:
            return
        self._tokens.note_visit(visitor, remote_ip)
        if len(self._visited_ns) >= MAX_USED:
            self._visited_ns.clear()
        self._visited_ns[key] = now_ns

    def log_out(self, sha256: str, remote_ip: str) -> None:
        """End a session; an unknown one is no error."""
        self._tokens.end_session(sha256, remote_ip)


class Operators:
    """Persons who log in; thread-safe."""

    def __init__(self, operators: OperatorRows, back_off: BackOff | None = None) -> None:
        self._operators = operators
        self._back_off = back_off or BackOff()
        self._checks = Checks()

    def bootstrap(self, admin_hash: str) -> None:
        """Make the first operator, when there is none."""
        if admin_hash and not self._operators.list(TENANT):
            row = OperatorRow(FIRST_OPERATOR, "platform", admin_hash, clock.now_ns())
            with suppress(Conflict):  # another worker that starts at the same time was quicker
                self._operators.add(row, Who(SYSTEM))

    def list(self, tenant: str) -> list[OperatorRow]:
        """Give all operators of a tenant in order of their names."""
        return self._operators.list(tenant)

    def create(self, wanted: OperatorCreate, who: Who) -> OperatorRow:
        """Add an operator.

        Raises:
            Conflict: the name is taken.
            Forbidden: the role is above that of who asks.
        """
        demand_grantable(wanted.role, who)
        hashed = hash_password(wanted.password)
        row = OperatorRow(wanted.name, wanted.role, hashed, clock.now_ns(), wanted.must_change)
        self._operators.add(row, who)
        return row

    def change(self, name: str, patch: OperatorPatch, who: Who) -> None:
        """Set password, role or both; the operator's sessions end.

        Raises:
            NotFound: no such operator.
            Unprocessable: neither is given.
            Forbidden: the role, or theirs of now, is above that of who asks.
        """
        self._demand_rank(name, who)
        values: dict[str, Any] = {}
        if patch.password is not None:
            values["password_hash"] = hash_password(patch.password)
        if patch.role is not None:
            demand_grantable(patch.role, who)
            values["role"] = patch.role
        if patch.must_change is not None:
            values["must_change"] = patch.must_change
        if not values:
            raise Unprocessable("give password, role or must_change", fields=["password", "role", "must_change"])
        self._operators.update(_plain(name), values, who)

    def remove(self, name: str, who: Who) -> None:
        """Delete an operator.

        Raises:
            NotFound: no such operator.
            Conflict: it is the last of the platform.
            Forbidden: their role is above that of who asks.
        """
        self._demand_rank(name, who)
        self._operators.remove(_plain(name), who)

    def log_in(self, login: Login) -> LoginAnswer:
        """Check name and password and begin a session.

        Raises:
            Unauthorized: one of them is wrong; which, is not told.
            TooManyRequests: too many wrong ones, or too many at once; also right ones have to wait then.
        """
        name, tenant = _split_name(login.name)
        operator = self._check(name, tenant, login.password, login.remote_ip)
        who = Who(f"operator:{operator.name}", login.remote_ip, tenant)
        if is_outdated(operator.password_hash):
            self._operators.rehash(operator.name, hash_password(login.password), who)
        token, expires_ns = new_token(), clock.now_ns() + SESSION_S * NS_PER_S
        self._operators.begin_session(operator.name, hash_token(token), expires_ns, who)
        members = {"token": token, "role": operator.role, "name": operator.name, "expires": expires_ns}
        return LoginAnswer.model_validate(members | {"must_change": operator.must_change})

    def change_own(self, name: str, change: PasswordChange, kept: str, who: Who) -> None:
        """Let somebody set a new password of their own; their other sessions end, that of the hash `kept` stays.

        Raises:
            Unauthorized: the old one is wrong.
            TooManyRequests: too many wrong ones, or too many at once.
            Unprocessable: the new one is the old one.
        """
        self._check(name, who.tenant, change.old, who.remote_ip)
        if change.old == change.new:
            raise Unprocessable("the new password is the old one", fields=["new"])
        values = {"password_hash": hash_password(change.new), "must_change": False}
        self._operators.update(name, values, who, kept=kept)

    def _check(self, name: str, tenant: str, password: str, remote_ip: str) -> OperatorRow:
        key, address = (f"{name}@{tenant}", remote_ip), ("", remote_ip)
        with self._checks.one_of(remote_ip):
            self._back_off.demand(key)
            self._back_off.demand(address)
            operator = self._operators.find(tenant, name)
            has_one = operator is not None and operator.password_hash != NO_PASSWORD
            is_right = is_password(operator.password_hash if operator and has_one else nobodys(), password)
            if operator is None or not has_one or not is_right:
                self._back_off.failed(key)
                self._back_off.failed(address, free=FREE_OF_ADDRESS)
                LOGIN_FAILURES.inc()
                raise Unauthorized("wrong name or password", code="login_failed")
            self._back_off.succeeded(key)
        return operator

    def _demand_rank(self, name: str, who: Who) -> None:
        found = self._operators.find(who.tenant, _plain(name))
        if found is not None:
            _demand_rank(found.role, who)


def _demand_rank(role: str, who: Who) -> None:
    """Refuse a change of somebody above who asks. Raises Forbidden."""
    if not allows(who.role, cast("Role", role)):
        raise Forbidden(f"this is a matter of the role {role}, which is above {who.role}", code="role_above")


def demand_grantable(role: Role, who: Who) -> None:
    """Refuse to hand out more than who asks has; those of the platform live in its own tenant. Raises Forbidden."""
    _demand_rank(role, who)
    if role == "platform" and who.tenant != TENANT:
        raise Forbidden(f"the role platform is for people of the tenant {TENANT}", code="role_above")


def _split_name(text: str) -> tuple[str, str]:
    """Read `name@tenant`; a name alone is of the platform's own tenant."""
    name, _, tenant = _plain(text).partition("@")
    return name, tenant or TENANT


def _is_over(found: Principal) -> bool:
    return found.expires is not None and found.expires <= clock.now_ns()


def _new_id() -> str:
    return "t" + secrets.token_hex(8)


def _plain(name: str) -> str:
    return name.replace("\0", "")
