"""ThingsBoard telemetry to records: `{key: value}`, `{"ts", "values"}`, arrays of either. Knows no device.

What a gateway says comes on topics of its own: readings by the name of the device, who came and who went.
Unlike plain JSON: `ts` (ms, kept as given) is a time only beside `values`; nested values become one JSON text; names
are taken as they are. Read in thingsboard/thingsboard dfe65d5a, JsonConverter.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from ingest.protocols import parse, times
from ingest.protocols.base import MAX_FIELDS, MAX_RECORDS, Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, check_text, compact, is_name, number
from ingest.protocols.json.decoder import Take, place, read_value, unreadable
from wire.external import MAX_NAME_BYTES, is_external_name
from wire.points import FieldValue

SCHEME = "tb:"  # of the names that gateways have for devices
BAD_NAME = f"a name is at most {MAX_NAME_BYTES - len(SCHEME)} bytes, without control characters"
GATEWAY_TELEMETRY, GATEWAY_CONNECT, GATEWAY_DISCONNECT = (
    f"v1/gateway/{said}" for said in ("telemetry", "connect", "disconnect")
)


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one object or an array of objects; on a gateway's topics, what they are about others."""
    reader = _Reader(context)
    takes: dict[str, Take] = {
        GATEWAY_TELEMETRY: reader.take_children,
        GATEWAY_CONNECT: partial(reader.take_presence, is_online=True),
        GATEWAY_DISCONNECT: partial(reader.take_presence, is_online=False),
    }
    try:
        read_value(parse.trim(content), reader.decoded, takes.get(context.topic, reader.take))
    except parse.Unreadable as error:
        return unreadable(error)
    return reader.decoded


def child_name(name: str) -> str:
    """Give the external name of what a gateway calls so."""
    return SCHEME + name


class _Reader:
    def __init__(self, context: Context) -> None:
        self.decoded = Decoded()
        self._received_ns = context.received_ns
        self._policy = times.policy_of(context.type, is_exact=True)
        self._count = 0  # records and faults of a gateway's message

    def take(self, value: Any, index: int, is_exact: bool, device: str | None = None) -> None:
        """Add the record or the faults of one object; see ingest.protocols.json.decoder.Reader.take."""
        try:
            self._take(value, Record(index, {}, device=device), is_exact=is_exact)
        except Refused as error:
            self.decoded.faults.append(Fault(index, error.code, error.detail))

    def take_children(self, value: Any, index: int, is_exact: bool) -> None:
        """Add what a gateway tells of others: `{name: [readings]}`; records are counted across all of it."""
        if index or type(value) is not dict:
            self._refuse_form("readings by the name of their device")
        self._count = 0
        for name, given in value.items():
            for reading in given if type(given) is list else [given]:
                self._take_childs(name, reading, is_exact=is_exact)
        if not value:
            raise parse.Unreadable("no_values", "no device in it")

    def take_presence(self, value: Any, index: int, is_exact: bool, *, is_online: bool) -> None:
        """Take `{"device": name}`."""
        del is_exact
        name = value.get("device") if type(value) is dict and not index else None
        if type(name) is not str or not name:
            self._refuse_form('{"device": name}')
        if not is_external_name(child_name(name)):
            raise parse.Unreadable("bad_name", BAD_NAME)
        self.decoded.presence[child_name(name)] = is_online
        self.decoded.is_event = True

    def _take_childs(self, name: str, reading: Any, *, is_exact: bool) -> None:
        if self._count >= MAX_RECORDS:
            raise parse.Unreadable("too_large", f"more than {MAX_RECORDS} readings in one message")
        device = child_name(name)
        if is_external_name(device):
            self.take(reading, self._count, is_exact, device)
        else:
            self.decoded.faults.append(Fault(self._count, "bad_name", BAD_NAME))
        self._count += 1

    def _refuse_form(self, wanted: str) -> NoReturn:
        raise parse.Unreadable("bad_structure", f"a gateway sends {wanted}")

    def _take(self, value: Any, record: Record, *, is_exact: bool) -> None:
        if type(value) is not dict:
            raise Refused("bad_structure", "a reading is a JSON object")
        members = value
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
