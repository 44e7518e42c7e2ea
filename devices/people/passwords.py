"""Hashes of people's passwords: argon2id; those of older installations (werkzeug's scrypt) go on verifying."""

from __future__ import annotations

from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# OWASP's password storage cheat sheet: 19 MiB, two passes, one lane. 20 to 60 ms here.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_ARGON2 = "$argon2"
NO_PASSWORD = "!"  # noqa: S105 - in the place of a hash: of people who log in by a provider


def hash_password(password: str) -> str:
    """Hash a new password."""
    return _HASHER.hash(password)


def is_password(hashed: str, password: str) -> bool:
    """Tell whether a password is that of a hash."""
    if not hashed.startswith(_ARGON2):
        from werkzeug.security import check_password_hash

        return check_password_hash(hashed, password)
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(hashed: str) -> bool:
    """Tell whether a hash is to be made anew when its password is known."""
    return not hashed.startswith(_ARGON2) or _HASHER.check_needs_rehash(hashed)


@lru_cache(1)
def nobodys() -> str:
    """Give the hash of a password that nobody has: unknown names take as long as known ones by it."""
    return hash_password("\0")
