"""A protocol of the tests whose records name devices: a JSON array of `{"device", "values", "ts"}`."""

from __future__ import annotations

import json
from typing import Any

from ingest.protocols import Protocol
from ingest.protocols.base import Context, Decoded, Fault, Record


class NamedProtocol(Protocol):
    """Decodes what `named` makes; a value of text under `bad` becomes a fault of that field."""

    @property
    def decode(self) -> Any:  # type: ignore[override]
        return _decode


def _decode(content: bytes, context: Context) -> Decoded:
    decoded = Decoded()
    for index, each in enumerate(json.loads(content)):
        if each.get("asks") is not None and each["asks"] not in context.names:
            continue
        if "bad" in each["values"]:
            decoded.faults.append(Fault(index, "bad_value", "bad", "bad"))
        fields = {name: value for name, value in each["values"].items() if name != "bad"}
        decoded.records.append(
            Record(
                index, fields, each.get("ts"), device=each["device"], boot_id=each.get("boot_id"), seq=each.get("seq")
            )
        )
    return decoded


def named(*records: tuple[str | None, Any], **more: Any) -> bytes:
    """Give a message: (name, values) each."""
    return json.dumps([{"device": device, "values": values} | more for device, values in records]).encode()


NAMED = NamedProtocol("named", "json", "")
