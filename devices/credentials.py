"""Credentials of devices: issuing them, and the hashes that stand for them. A secret exists only in the answer."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from dataclasses import replace

from chassis.tokens import hash_token, new_token
from devices.rows import CredentialRow
from wire.errors import Unprocessable
from wire.registry import CredentialCreate, IssuedCredential

# mosquitto.conf(5), mosquitto_passwd(1): `$7$` is PBKDF2 with SHA-512; 101 rounds are its default. Few, which is
# right for 256 random bits: a device reconnects often and the broker has one thread.
CERTIFICATE = "x509"  # in the place of a hash for the broker: the credential is a certificate, `sha256` is its own
ROUNDS = 101
_SALT_BYTES = 12


def issue(device_id: str, now_ns: int, validity: CredentialCreate) -> tuple[IssuedCredential, CredentialRow]:
    """Make a credential: what its owner is told once, and what is stored.

    Raises:
        Unprocessable: it would end before it begins.
    """
    start_ns, end_ns = validity.not_before, validity.not_after
    if end_ns is not None and end_ns <= max(now_ns, start_ns or now_ns):
        raise Unprocessable("not_after must be later than now and than not_before", fields=["not_after"])
    secret, key = new_token(), "c" + secrets.token_hex(8)
    issued = IssuedCredential(
        id=key,
        label=validity.label,
        username=device_id,
        secret=secret,
        bearer=f"{device_id}.{secret}",
        not_before=start_ns,
        not_after=end_ns,
    )
    stored = adopt(device_id, secret, now_ns)
    row = replace(stored, id=key, not_before_ns=start_ns, not_after_ns=end_ns, label=validity.label)
    return issued, row


def adopt(device_id: str, secret: str, now_ns: int) -> CredentialRow:
    """Give what is stored of a secret that a device has already: the key derived for it from its group's."""
    key = "c" + secrets.token_hex(8)
    return CredentialRow(key, device_id, hash_token(secret), hash_for_broker(secret), now_ns, plain=secret)


def hash_for_broker(secret: str) -> str:
    """Hash a secret as mosquitto's password file wants it; made at issue time, when the plain secret exists."""
    salt = os.urandom(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, ROUNDS)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
