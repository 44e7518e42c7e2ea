"""A message as it was received, and who sent it. Knows no transport and no store."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from ingest.gate import Known
from ingest.protocols import Protocol
from ingest.quarantine import RawMessage
from ingest.usage import Use
from ingest.validation import TypeChecker


class Message(msgspec.Struct, gc=False):  # a struct: a dataclass takes three times as long to make, once a message
    """One message and who sent it."""

    device: Known
    protocol: Protocol
    content: bytes
    received_ns: int
    transport: str = "http"
    source: str = ""  # topic, or content type
    mid: int = 0  # broker's message id; 0 unless MQTT QoS >= 1
    is_redelivered: bool = False
    is_retained: bool = False
    bridge: str = ""  # with the name of the broker's session, which `mid` is of

    @property
    def delivery(self) -> int | None:
        """Give what a reading keeps of the way it came: the broker's message id, 0 at QoS 0, None over HTTP."""
        return self.mid if self.transport == "mqtt" else None

    @property
    def whose(self) -> tuple[str, str]:
        """Tenant and device."""
        return self.device.tenant, self.device.id

    def use(self, readings: int) -> Use:
        """Give what it counts for in the usage, with so many readings."""
        device = self.device
        return device.tenant, device.type or "", device.id, (1, readings, len(self.content))

    def to_raw(self, checker: TypeChecker | None, *, is_readable: bool) -> RawMessage:
        """Give what the quarantine keeps."""
        return RawMessage(
            self.device.id, self.protocol.name, self.transport, self.content, self.received_ns, self.source,
            self.device.tenant, checker.spec.name if checker else None, checker.spec.version if checker else None,
            is_readable,
        )  # fmt: skip

    def hash_content(self) -> int:
        """Hash session, topic, device where the topic does not name it, and payload to signed 64 bits (SQLite's)."""
        whose = "" if self.source.startswith("devices/") else f"{self.device.id}\0"
        digest = blake2b((whose + self.source).encode(errors="replace"), digest_size=8)
        digest.update(f"\0{self.bridge}\0".encode(errors="replace") + self.content)
        return int.from_bytes(digest.digest(), signed=True)
