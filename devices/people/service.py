"""Operators: API tokens, persons who log in, sessions, and the back-off against guessing. Knows no HTTP and no SQL."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

from werkzeug.security import check_password_hash, generate_password_hash

from chassis.tokens import hash_token, new_token, split_tenant
from devices.metrics import LOGIN_FAILURES
from devices.rows import SYSTEM, OperatorRow, TokenRow, Who
from wire import clock
from wire.clock import NS_PER_S
from wire.devices import TENANT, Principal, Role, allows
from wire.errors import Forbidden, TooManyRequests, Unauthorized, Unprocessable
from wire.registry import Login, LoginAnswer, OperatorCreate, OperatorPatch, TokenCreate, TokenCreated

SESSION_S = 12 * 3600
BOOTSTRAP = "bootstrap"
FIRST_OPERATOR = "admin"
FREE_FAILURES = 5  # wrong passwords of one name from one address before it has to wait
MAX_WAIT_S = 300.0
MAX_REMEMBERED = 10_000  # pairs of name and address
CHECKS_AT_ONCE = 4  # passwords: each check costs 32 MB and a tenth of a second, and devices wait for the same threads
CHECKS_OF_ADDRESS = 2  # of these for one address, so that a flood from there does not shut out everybody
_NOBODY = "scrypt:32768:8:1$nobody$" + "0" * 128  # of no password; unknown names take as long as known ones by it


class TokenRows(Protocol):
    """Where tokens and sessions are kept; see `devices.people.store.TokenStore`."""

    def list(self, tenant: str) -> list[TokenRow]: ...
    def add(self, token: TokenRow, who: Who, *, replaces: bool = False) -> None: ...
    def find(self, tenant: str, id_or_name: str) -> TokenRow: ...
    def remove(self, token: TokenRow, who: Who) -> None: ...
    def principal_of(self, sha256: str, now_ns: int, tenant: str | None = None) -> Principal | None: ...
    def end_session(self, sha256: str) -> str | None: ...


class OperatorRows(Protocol):
    """Where operators are kept; see `devices.people.store.OperatorStore`."""

    def list(self, tenant: str) -> list[OperatorRow]: ...
    def find(self, tenant: str, name: str) -> OperatorRow | None: ...
    def add(self, operator: OperatorRow, who: Who) -> None: ...
    def update(self, name: str, values: dict[str, str], who: Who) -> None: ...
    def remove(self, name: str, who: Who) -> None: ...
    def begin_session(self, name: str, sha256: str, expires_ns: int, who: Who) -> None: ...


class Tokens:
    """API tokens and sessions; thread-safe. A chassis.tokens.TokenChecker without a cache: revoking works at once."""

    def __init__(self, tokens: TokenRows) -> None:
        self._tokens = tokens

    def bootstrap(self, token: str) -> None:
        """Make the installation's own token known as one of the platform, in the place of an older one."""
        if token and self.check(token) is None:
            row = TokenRow(_new_id(), BOOTSTRAP, "platform", hash_token(token), clock.now_ns())
            self._tokens.add(row, Who(SYSTEM), replaces=True)

    def check(self, token: str) -> Principal | None:
        """Tell who presents a token, in which tenant."""
        secret, tenant = split_tenant(token)
        return self.verify(hash_token(secret), tenant)

    def verify(self, sha256: str, tenant: str | None = None) -> Principal | None:
        """Tell whose token has this hash; None also when they may not act in the tenant that is named."""
        return self._tokens.principal_of(sha256, clock.now_ns(), _plain(tenant) if tenant is not None else None)

    def create(self, wanted: TokenCreate, who: Who) -> TokenCreated:
        """Make an API token.

        Raises:
            Conflict: the name is taken.
            Unprocessable: it would be over already.
            Forbidden: the role is above that of who asks.
        """
        _demand_grantable(wanted.role, who)
        now_ns = clock.now_ns()
        if wanted.expires is not None and wanted.expires <= now_ns:
            raise Unprocessable("expires must be later than now", fields=["expires"])
        token = new_token()
        row = TokenRow(_new_id(), wanted.name, wanted.role, hash_token(token), now_ns, wanted.expires)
        self._tokens.add(row, who)
        return TokenCreated(
            id=row.id, name=row.name, role=wanted.role, created=now_ns, expires=wanted.expires, token=token
        )

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

    def log_out(self, sha256: str) -> None:
        """End a session; an unknown one is no error."""
        self._tokens.end_session(sha256)


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
        _demand_grantable(wanted.role, who)
        row = OperatorRow(wanted.name, wanted.role, generate_password_hash(wanted.password), clock.now_ns())
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
        values: dict[str, str] = {}
        if patch.password is not None:
            values["password_hash"] = generate_password_hash(patch.password)
        if patch.role is not None:
            _demand_grantable(patch.role, who)
            values["role"] = patch.role
        if not values:
            raise Unprocessable("give a password, a role, or both", fields=["password", "role"])
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
        key = (login.name, login.remote_ip)
        name, tenant = _split_name(login.name)
        with self._checks.one_of(login.remote_ip):
            self._back_off.demand(key)
            operator = self._operators.find(tenant, name)
            is_right = check_password_hash(operator.password_hash if operator else _NOBODY, login.password)
            if operator is None or not is_right:
                self._back_off.failed(key)
                LOGIN_FAILURES.inc()
                raise Unauthorized("wrong name or password", code="login_failed")
            self._back_off.succeeded(key)
        token, expires_ns = new_token(), clock.now_ns() + SESSION_S * NS_PER_S
        who = Who(f"operator:{operator.name}", login.remote_ip, tenant)
        self._operators.begin_session(operator.name, hash_token(token), expires_ns, who)
        return LoginAnswer.model_validate(
            {"token": token, "role": operator.role, "name": operator.name, "expires": expires_ns}
        )

    def _demand_rank(self, name: str, who: Who) -> None:
        found = self._operators.find(who.tenant, _plain(name))
        if found is not None:
            _demand_rank(found.role, who)


class Checks:
    """Bounds how many passwords are checked at one time, in all and for one address. Nobody queues."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()  # guarded by _lock
        self._lock = threading.Lock()

    @contextmanager
    def one_of(self, remote_ip: str) -> Iterator[None]:
        """Take a place for the time of a check.

        Raises:
            TooManyRequests: none is free.
        """
        with self._lock:
            if self._running.total() >= CHECKS_AT_ONCE or self._running[remote_ip] >= CHECKS_OF_ADDRESS:
                raise TooManyRequests("too many log-ins at once, wait", retry_after_s=1, code="login_back_off")
            self._running[remote_ip] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[remote_ip] -= 1
                if not self._running[remote_ip]:
                    del self._running[remote_ip]


class BackOff:
    """Waiting times after wrong passwords: doubling from 1 s after FREE_FAILURES, per name and address.

    Held in memory: a restart forgives, which an attacker cannot cause.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}  # guarded by _lock: count, when it may try again
        self._lock = threading.Lock()

    def demand(self, key: tuple[str, str]) -> None:
        """Refuse while waiting.

        Raises:
            TooManyRequests: it has to wait.
        """
        with self._lock:
            _, until_s = self._failures.get(key, (0, 0.0))
        left_s = until_s - time.monotonic()
        if left_s > 0:
            wait_s = int(left_s) + 1
            raise TooManyRequests("too many wrong passwords, wait", retry_after_s=wait_s, code="login_back_off")

    def failed(self, key: tuple[str, str]) -> None:
        """Count a wrong password."""
        with self._lock:
            count = self._failures.pop(key, (0, 0.0))[0] + 1
            wait_s = min(2.0 ** (count - FREE_FAILURES), MAX_WAIT_S) if count >= FREE_FAILURES else 0.0
            if len(self._failures) >= MAX_REMEMBERED:
                self._failures.pop(next(iter(self._failures)))
            self._failures[key] = (count, time.monotonic() + wait_s)

    def succeeded(self, key: tuple[str, str]) -> None:
        """Forget the wrong ones."""
        with self._lock:
            self._failures.pop(key, None)


def _demand_rank(role: str, who: Who) -> None:
    """Refuse a change of somebody above who asks. Raises Forbidden."""
    if not allows(who.role, cast("Role", role)):
        raise Forbidden(f"this is a matter of the role {role}, which is above {who.role}", code="role_above")


def _demand_grantable(role: Role, who: Who) -> None:
    """Refuse to hand out more than who asks has; those of the platform live in its own tenant. Raises Forbidden."""
    _demand_rank(role, who)
    if role == "platform" and who.tenant != TENANT:
        raise Forbidden(f"the role platform is for people of the tenant {TENANT}", code="role_above")


def _split_name(text: str) -> tuple[str, str]:
    """Read `name@tenant`; a name alone is of the platform's own tenant."""
    name, _, tenant = _plain(text).partition("@")
    return name, tenant or TENANT


def _new_id() -> str:
    return "t" + secrets.token_hex(8)


def _plain(name: str) -> str:
    return name.replace("\0", "")
