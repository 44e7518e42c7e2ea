"""Sealing of keys that must be read again (group keys, a CA's private key): AES-256-GCM under the installation's key.

Hashes would do for anything that is only compared. These are used, so they lie encrypted in the database, and the key
to them lies outside it: a copy of the database alone derives no device's key and signs no certificate.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

from wire.errors import Unavailable

NONCE_BYTES = 12
_VERSION = "1."


class Seal:
    """Encrypts and decrypts with one key; thread-safe."""

    def __init__(self, key: str) -> None:
        """`key` is a text of at least 256 random bits; empty: nothing can be sealed."""
        self._key = hashlib.sha256(b"headwater registry key\0" + key.encode()).digest() if key else b""

    def close(self, content: bytes, purpose: str) -> str:
        """Encrypt; only an `open` with the same purpose gives it back.

        Raises:
            Unavailable: there is no key.
        """
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher().encrypt(nonce, content, purpose.encode())
        return _VERSION + base64.b64encode(sealed).decode()

    def open(self, sealed: str, purpose: str) -> bytes:
        """Decrypt.

        Raises:
            Unavailable: there is no key, or it is another than the one it was sealed with.
        """
        from cryptography.exceptions import InvalidTag

        content = base64.b64decode(sealed.removeprefix(_VERSION))
        try:
            opened: bytes = self._cipher().decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], purpose.encode())
        except InvalidTag:
            raise Unavailable(
                "HEADWATER_REGISTRY_KEY is not the key that this database was written with", code="wrong_registry_key"
            ) from None
        return opened

    def reveal(self, sealed: str, purpose: str) -> str | None:
        """Decrypt a text; None for what was never sealed (a hash from before).

        Raises:
            Unavailable: as `open`.
        """
        return self.open(sealed, purpose).decode() if sealed.startswith(_VERSION) else None

    def _cipher(self) -> Any:
        # Imported here: it costs 30 ms, and few installations need it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not self._key:
            raise Unavailable("HEADWATER_REGISTRY_KEY is not set: keys cannot be kept", code="no_registry_key")
        return AESGCM(self._key)
