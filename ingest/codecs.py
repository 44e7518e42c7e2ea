"""The codecs of device types: from the bytes that a network server carried to the fields that its device meant.

Knows no protocol's envelope and no store. A decoder leaves the bytes in the record (`Payload`), because only here is
known whose they are, and what its type says. What a codec makes of them replaces the bytes; a codec that fails costs
its message, which waits in the quarantine until the codec is mended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from chassis import parking
from chassis.metrics import Counter
from chassis.scripts import Limits, ScriptFault, Scripts
from ingest.protocols import cayenne
from ingest.protocols.base import Payload, Record
from ingest.protocols.flatten import FieldFault, Refused, flatten
from wire.codecs import CodecFault, Told, decoding, encoding, read_encoded, read_told
from wire.devices import Codec, DeviceType
from wire.points import UNCERTAIN

T = TypeVar("T")
STRIKES = 5  # runs out of time in a row, after which a codec rests: an endless loop must not take a processor
REST_S = 1.0  # then it is tried once in so long
MAX_STRUCK = 1_000  # codecs remembered; more of them at once are a fault elsewhere
RUNS = Counter("headwater_codec_runs", "Runs of codecs in JavaScript", ["outcome"])


class _Struck(NamedTuple):
    """How often in a row a codec was out of time, and until when it rests (monotonic)."""

    codec: Codec  # kept, so that its identity is nobody else's
    times: int
    until_s: float


class Codecs:
    """Decodes what records carry. Thread-safe."""

    def __init__(self) -> None:
        """Prepare; processes start with the first script that is run."""
        self._scripts = Scripts()
        self._struck_scripts = Scripts()  # of codecs that were out of time: the others do not wait for them
        self._lock = threading.Lock()  # guards _struck
        # By the codec's identity, which is that of one type of one tenant: others may have the same script of a vendor.
        self._struck: dict[int, _Struck] = {}

    def open(self, record: Record, spec: DeviceType | None, received_ns: int) -> list[FieldFault]:
        """Put fields in place of a record's bytes where its device type has a codec for them.

        Gives:
            The faults of fields that cannot be taken.

        Raises:
            Refused: the codec gave nothing.
        """
        payload, codec = record.payload, spec.codec if spec is not None else None
        if payload is None or codec is None or not codec.takes(payload.port):
            return []
        told = self._decode(codec, payload, received_ns)
        fields, faults = flatten(told.data, is_exact=True)
        if not told.is_partial:
            record.fields.pop(payload.field, None)
        record.fields = fields | record.fields
        record.flags |= UNCERTAIN if told.warnings else 0
        return faults

    def close(self) -> None:
        """End the processes that run scripts."""
        self._scripts.close()
        self._struck_scripts.close()

    def encode(self, codec: Codec, members: dict[str, Any], port: int) -> tuple[bytes, int] | None:
        """Give the bytes of a downlink, and on which port they go; None: the codec encodes nothing.

        Raises:
            Refused: the codec gave nothing.
        """
        if codec.language != "javascript":
            return None
        return self._run(codec, encoding(members, port), lambda text: read_encoded(text, port))

    def _decode(self, codec: Codec, payload: Payload, received_ns: int) -> Told:
        if codec.language == "cayenne_lpp":
            return cayenne.decode(payload.content)
        return self._run(codec, decoding(payload.content, payload.port, received_ns), read_told)

    def _run(self, codec: Codec, call: str, read: Callable[[str], T]) -> T:
        scripts = self._struck_scripts if self._is_struck(codec) else self._scripts
        limits = Limits(codec.time_limit_ms, codec.memory_limit_kib)
        try:
            told = read(parking.aside(scripts.run, codec.text, call, limits))
        except (ScriptFault, CodecFault) as error:
            limit = error.limit if isinstance(error, ScriptFault) else ""
            self._note(codec, limit)
            RUNS.labels(limit or "fault").inc()
            raise Refused("codec", f"codec: {error}") from None
        self._note(codec, "")
        RUNS.labels("done").inc()
        return told

    def _is_struck(self, codec: Codec) -> bool:
        """Tell whether a codec was out of time when it ran last. Raises Refused: it rests."""
        struck = self._struck.get(id(codec))
        if struck is None or struck.times < STRIKES:
            return struck is not None
        now_s = time.monotonic()
        with self._lock:
            is_its_turn = self._struck.get(id(codec), struck).until_s <= now_s
            if is_its_turn:  # of those that wait for it one tries
                self._struck[id(codec)] = struck._replace(until_s=now_s + REST_S)
        if not is_its_turn:
            RUNS.labels("rested").inc()
            raise Refused("codec", f"codec: it needed more than its time {struck.times} times in a row and rests")
        return True

    def _note(self, codec: Codec, limit: str) -> None:
        if limit != "time":
            if id(codec) in self._struck:
                with self._lock:
                    self._struck.pop(id(codec), None)
            return
        with self._lock:
            times = self._struck.get(id(codec), _Struck(codec, 0, 0.0)).times + 1
            if len(self._struck) >= MAX_STRUCK:
                self._struck.clear()
            self._struck[id(codec)] = _Struck(codec, times, time.monotonic() + REST_S)
