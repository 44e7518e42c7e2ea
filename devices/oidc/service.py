"""From an answer of the provider to a session: which account, which tenant, which role. Knows no HTTP and no SQL.

What ties the browser that comes back to the log-in it began is sealed into a cookie: nothing is kept here meanwhile.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from chassis import logs
from chassis.guessing import BackOff
from chassis.tokens import hash_token, new_token
from devices.enrolment.seal import Seal
from devices.metrics import LOGIN_FAILURES
from devices.oidc.config import OidcSettings, read_roles
from devices.oidc.provider import Attempt, Claims, Provider
from devices.people.guessing import FREE_OF_ADDRESS, Checks
from devices.people.service import SESSION_S
from devices.rows import OperatorRow
from wire import clock
from wire.clock import NS_PER_S
from wire.devices import ROLES, TENANT, Role
from wire.errors import BadRequest, Forbidden, HeadwaterError, Unauthorized, Unavailable
from wire.people import OidcBegin, OidcBegun, OidcFinish, OidcSession

log = logs.get(__name__)
ATTEMPT_S = 600
MAX_NAME = 64
_PURPOSE = "oidc"
_ODD = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody the provider vouches for; what is None was not said, and stays as it is or is given by an invitation."""

    subject: str  # issuer and `sub`: unique and for ever, unlike names and addresses
    remote_ip: str
    name: str | None = None
    tenant: str | None = None
    role: Role | None = None
    invitation: str | None = None  # sha256 of its token
    first: tuple[str, Role] | None = None  # tenant and role of a new account without invitation; None: none is made


class People(Protocol):
    """Accounts; see `devices.oidc.store.PeopleStore`."""

    def enter(self, person: Person, sha256: str, expires_ns: int) -> OperatorRow: ...
    def end_sessions(self, subject: str, remote_ip: str) -> None: ...


class SignOn:
    """Log-in by the provider; thread-safe."""

    def __init__(
        self, settings: OidcSettings, provider: Provider, people: People, seal: Seal,
        now_ns: Callable[[], int] = clock.now_ns,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._roles = read_roles(settings.oidc_roles)
        self._provider = provider
        self._people = people
        self._seal = seal
        self._now_ns = now_ns
        self._back_off = BackOff()
        self._checks = Checks()

    def begin(self, asked: OidcBegin) -> OidcBegun:
        """Give the address to send a browser to, and what it has to bring back.

        Raises:
            Unavailable: the provider cannot be asked.
        """
        attempt = Attempt(new_token(), new_token(), new_token())
        kept = {
            "state": attempt.state, "nonce": attempt.nonce, "verifier": attempt.verifier, "next": asked.next,
            "over_ns": self._now_ns() + ATTEMPT_S * NS_PER_S,
            "invitation": hash_token(asked.invitation) if asked.invitation else None,
        }  # fmt: skip
        url = self._provider.begin(attempt)
        return OidcBegun(url=url, attempt=self._seal.close(orjson.dumps(kept), _PURPOSE), seconds=ATTEMPT_S)

    def finish(self, given: OidcFinish) -> OidcSession:
        """Check what the browser brought back, and begin a session.

        Raises:
            BadRequest: it does not belong to a log-in that this browser began.
            Unauthorized: the provider, or the token it gave, says no.
            Forbidden: the person has no account or no role here.
            TooManyRequests: too many that failed, or too many at once.
        """
        key = ("oidc", given.remote_ip)
        with self._checks.one_of(given.remote_ip):
            self._back_off.demand(key)
            try:
                return self._finish(given)
            except HeadwaterError as error:
                log.info("oidc_login_refused", code=error.code, detail=error.detail, remote_ip=given.remote_ip)
                if not isinstance(error, Unavailable):
                    self._back_off.failed(key, free=FREE_OF_ADDRESS)
                    LOGIN_FAILURES.inc()
                raise

    def leave(self) -> str | None:
        """Give the address at which somebody logs out at the provider too, if it has one."""
        here = urlsplit(self._settings.oidc_redirect_url)
        return self._provider.leave(f"{here.scheme}://{here.netloc}/login")

    def _finish(self, given: OidcFinish) -> OidcSession:
        kept = self._open(given.attempt)
        if not hmac.compare_digest(given.state.encode(), kept["state"].encode()):
            raise _foreign()
        if given.error or not given.code:
            reason = _ODD.sub(" ", given.error or "no code")[:80]
            raise Unauthorized(f"the provider refused the log-in: {reason}", code="oidc_refused")
        attempt = Attempt(kept["state"], kept["nonce"], kept["verifier"])
        person = self._person(self._provider.redeem(given.code, given.iss, attempt), given.remote_ip)
        person = replace(person, invitation=kept["invitation"])
        token, expires_ns = new_token(), self._now_ns() + SESSION_S * NS_PER_S
        entered = self._people.enter(person, hash_token(token), expires_ns)
        members = {"token": token, "role": entered.role, "name": entered.name, "expires": expires_ns}
        return OidcSession.model_validate(members | {"next": kept["next"]})

    def _open(self, sealed: str) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = orjson.loads(self._seal.open(sealed, _PURPOSE))
        except (ValueError, Unavailable):
            raise _foreign() from None
        if kept["over_ns"] <= self._now_ns():
            raise _foreign()
        return kept

    def _person(self, claims: Claims, remote_ip: str) -> Person:
        settings = self._settings
        subject = f"{settings.oidc_issuer} {claims['sub']}"
        tenant = None
        if settings.oidc_tenant_claim:
            found = _texts(claims, settings.oidc_tenant_claim)
            if len(found) != 1:
                raise Forbidden(f"the provider names no tenant ({settings.oidc_tenant_claim})", code="oidc_no_tenant")
            tenant = found[0]
        role = self._role(claims, subject, remote_ip)
        place = tenant or settings.oidc_tenant
        if role == "platform" and place != TENANT:
            role = "admin"
        first = (place, role or settings.oidc_role) if settings.oidc_accounts == "anybody" else None
        name = _name(_texts(claims, settings.oidc_name_claim))
        return Person(subject, remote_ip, name, tenant, role, first=first)

    def _role(self, claims: Claims, subject: str, remote_ip: str) -> Role | None:
        if not self._roles:
            return None
        held = {self._roles[text] for text in _texts(claims, self._settings.oidc_role_claim) if text in self._roles}
        if not held:
            self._people.end_sessions(subject, remote_ip)
            detail = f"the provider names no group that has a role here ({self._settings.oidc_role_claim})"
            raise Forbidden(detail, code="oidc_no_role")
        return max(held, key=ROLES.index)


def _texts(claims: Claims, path: str) -> list[str]:
    """Give the texts of a claim: one, or a list; `realm_access.roles` goes down into an object."""
    found: Any = claims
    if path in claims:
        found = claims[path]
    else:
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, str) and each]


def _name(found: list[str]) -> str | None:
    """Make a name of an account from what the provider calls somebody: ada@example.com is ada-example.com."""
    text = _ODD.sub("-", found[0]).lstrip("_.-") if found else ""
    return text[:MAX_NAME] or None


def _foreign() -> BadRequest:
    return BadRequest("this log-in was begun elsewhere, or too long ago; begin it again", code="oidc_state")
