"""Keys of devices that are derived from their group's: what both sides of an enrolment work out."""

from __future__ import annotations

import base64
import hashlib
import hmac

KEY_BYTES = 32
MIN_KEY_BYTES = 16
DERIVED_CHARS = 44  # base64 of a SHA-256


def derive_key(group_key: bytes, device_id: str) -> str:
    """Derive a device's key from its group's, as Azure's Device Provisioning Service does: base64 of an HMAC-SHA256."""
    return base64.b64encode(hmac.digest(group_key, device_id.encode(), hashlib.sha256)).decode()


def may_be_derived(secret: str) -> bool:
    """Tell whether a secret has the form of a derived key; issued secrets never do."""
    return len(secret) == DERIVED_CHARS and secret.endswith("=")


def read_key(text: str) -> bytes:
    """Read a group key from base64.

    Raises:
        ValueError: it is not base64, or too short.
    """
    key = base64.b64decode(text, validate=True)
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"a group key has at least {MIN_KEY_BYTES} bytes, not {len(key)}")
    return key
