"""ThingsBoard telemetry to records: `{key: value}`, `{"ts", "values"}`, arrays of either. Knows no device.

Unlike plain JSON: `ts` (ms, kept as given) is a time only beside `values`; nested values become one JSON text; names
are taken as they are. Read in thingsboard/thingsboard dfe65d5a, JsonConverter.
"""

from __future__ import annotations

from typing import Any

from ingest.protocols import parse, times
from ingest.protocols.base import MAX_FIELDS, Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, check_text, compact, is_name, number
from ingest.protocols.json.decoder import place, read_value, unreadable
from wire.points import FieldValue


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one object or an array of objects."""
    reader = _Reader(context)
    try:
        read_value(parse.trim(content), reader.decoded, reader.take)
    except parse.Unreadable as error:
        return unreadable(error)
    return reader.decoded


class _Reader:
    def __init__(self, context: Context) -> None:
        self.decoded = Decoded()
        self._received_ns = context.received_ns
        self._policy = times.policy_of(context.type, is_exact=True)

    def take(self, value: Any, index: int, is_exact: bool) -> None:
        """Add the record or the faults of one object; see ingest.protocols.json.decoder.Reader.take."""
        try:
            self._take(value, index, is_exact=is_exact)
        except Refused as error:
            self.decoded.faults.append(Fault(index, error.code, error.detail))

    def _take(self, value: Any, index: int, *, is_exact: bool) -> None:
        if type(value) is not dict:
            raise Refused("bad_structure", "a reading is a JSON object")
        record, members = Record(index, {}), value
        if "ts" in value and type(value.get("values")) is dict:
            members = value["values"]
            self._set_time(record, value["ts"], is_exact=is_exact)
        faults = [fault for name, member in members.items() if (fault := _put(record, name, member, is_exact=is_exact))]
        if not record.fields and not faults:
            raise Refused("no_values", "the reading holds no values")
        if len(record.fields) + len(faults) > MAX_FIELDS:
            raise Refused("too_many_fields", f"more than {MAX_FIELDS} fields")
        self.decoded.faults += faults
        self.decoded.records.append(record)

    def _set_time(self, record: Record, token: Any, *, is_exact: bool) -> None:
        if token is None:
            return
        try:
            time_ns, _ = times.read(token, "ms", is_exact=is_exact)
        except ValueError as error:
            raise Refused("bad_time", str(error)) from None
        place(record, time_ns, self._received_ns, self._policy)


def _put(record: Record, name: str, value: Any, *, is_exact: bool) -> Fault | None:
    if value is None:
        return None
    if not is_name(name):
        shown = name.encode(errors="replace")[:256].decode(errors="ignore")
        return Fault(record.index, "bad_name", "a name is 1 to 256 bytes without control characters", shown)
    kept = _kept(value, is_exact=is_exact)
    if isinstance(kept, tuple):
        return Fault(record.index, *kept, name)
    record.fields[name] = kept
    return None


def _kept(value: Any, *, is_exact: bool) -> FieldValue | tuple[str, str]:
    if type(value) is bool:
        return value
    if type(value) is str:
        return check_text(value) or value
    if type(value) in (dict, list):
        return compact(value, is_exact=is_exact)
    return number(value, is_exact=is_exact)
