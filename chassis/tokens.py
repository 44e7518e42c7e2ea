"""Tokens: making, hashing and checking them. A token is 256 random bits; only its SHA-256 is ever stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from typing import Protocol

from chassis.peers import Peer
from wire.devices import Principal
from wire.errors import NotFound, PeerUnavailable
from wire.topics import is_device_id

FRESH_S = 1.0  # a revoked token works at most this long elsewhere
STALE_S = 60.0  # how long a known token still works while the registry is away
MAX_CACHED = 10_000


class TokenChecker(Protocol):
    """Tells who presents a token."""

    def check(self, token: str, remote_ip: str = "") -> Principal | None:
        """Give the principal, or None for a token that is unknown, expired or revoked."""
        ...


def new_token() -> str:
    """Make a secret: 43 characters base64url of 32 random bytes; it never holds a dot."""
    return secrets.token_urlsafe(32)


def split_tenant(token: str) -> tuple[str, str | None]:
    """Read `<token>@<tenant>`: one of the platform acts in another tenant, and whatever hands the token on says so."""
    secret, at, tenant = token.partition("@")
    return secret, tenant if at else None


def hash_token(token: str) -> str:
    """SHA-256 in hex: right for high-entropy secrets, a slow hash per request would end the throughput."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_same(presented: str, expected: str) -> bool:
    """Compare two secrets in constant time; an empty expected one matches nothing."""
    return bool(expected) and hmac.compare_digest(presented.encode("utf-8", "surrogatepass"), expected.encode())


class PeerTokens:
    """Checks operator tokens with the registry, through a small bounded cache."""

    def __init__(self, registry: Peer) -> None:
        self._registry = registry
        self._known: dict[str, tuple[float, Principal | None]] = {}  # guarded by _lock
        self._lock = threading.Lock()

    def check(self, token: str, remote_ip: str = "") -> Principal | None:  # noqa: ARG002 - the peer hands it on
        """See TokenChecker.

        Raises:
            PeerUnavailable: the registry is away and the token was not seen in the last minute.
        """
        key, now = hash_token(token), time.monotonic()
        with self._lock:
            seen_s, principal = self._known.get(key, (-STALE_S, None))
        if now - seen_s < FRESH_S:
            return principal
        try:
            principal = self._ask(token)
        except PeerUnavailable:
            if now - seen_s < STALE_S and principal is not None:
                return principal
            raise
        self._remember(key, now, principal)
        return principal

    def forget(self, token: str) -> None:
        """Ask anew about a token whose bearer has just changed what is known of them."""
        with self._lock:
            self._known.pop(hash_token(token), None)

    def _ask(self, token: str) -> Principal | None:
        secret, tenant = split_tenant(token)
        if tenant is not None and not is_device_id(tenant):  # the grammar of names is that of device ids
            return None
        asked = {"sha256": hash_token(secret)} | ({"tenant": tenant} if tenant is not None else {})
        try:
            return Principal.model_validate(self._registry.call("POST", "/internal/tokens:verify", asked))
        except NotFound:
            return None

    def _remember(self, key: str, now: float, principal: Principal | None) -> None:
        with self._lock:
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[key] = (now, principal)
