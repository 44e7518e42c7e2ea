"""Values of collectd's MQTT plugin to records. Pure.

A topic is `{prefix}/{host}/{plugin}[-{instance}]/{type}[-{instance}]`, a message `{time}:{value}[:{value}...]` with the
time in s, ending in NUL (collectd 5.12, src/mqtt.c). A gateway speaks for the hosts that the topics name; any other
sender for itself.
"""

from __future__ import annotations

from ingest.protocols import objects, parse, scalar, times
from ingest.protocols.base import MAX_FIELDS, Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, segment
from ingest.protocols.json.decoder import place, unreadable

MEASUREMENT = "collectd"
MAX_VALUES = MAX_FIELDS  # of a message: no type has nearly as many
NO_VALUES = frozenset(("U", "nan", "-nan", "NaN"))
READ_WRITE, RX_TX = ("read", "write"), ("rx", "tx")
NAMES = {  # of the values of types that have several, as its types.db calls them; of others they are numbered
    "compression": ("uncompressed", "compressed"), "df": ("used", "free"),
    "disk_io_time": ("io_time", "weighted_io_time"),
    "disk_latency": READ_WRITE, "disk_merged": READ_WRITE, "disk_octets": READ_WRITE, "disk_ops": READ_WRITE,
    "disk_time": READ_WRITE, "dns_octets": ("queries", "responses"), "if_dropped": RX_TX, "if_errors": RX_TX,
    "if_octets": RX_TX, "if_packets": RX_TX, "io_octets": RX_TX, "io_ops": READ_WRITE, "io_packets": RX_TX,
    "load": ("shortterm", "midterm", "longterm"), "memcached_octets": RX_TX, "mysql_octets": RX_TX,
    "node_octets": RX_TX, "ps_count": ("processes", "threads"), "ps_cputime": ("user", "syst"),
    "ps_disk_octets": READ_WRITE, "ps_disk_ops": READ_WRITE, "ps_pagefaults": ("minflt", "majflt"),
    "serial_octets": RX_TX, "vmpage_faults": ("minflt", "majflt"), "vmpage_io": ("in", "out"),
}  # fmt: skip


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one list of values."""
    topic = objects.own_topic(context)
    if not topic:  # nothing names the values
        return unreadable(parse.Unreadable("unsupported", "collectd comes by MQTT only, on its own topics"))
    levels = topic.split("/")
    if len(levels) < 4:  # noqa: PLR2004 - prefix, host, plugin and type
        return unreadable(parse.Unreadable("bad_topic", "not {prefix}/{host}/{plugin}/{type}"))
    try:
        return _read(content, context, levels[-3:])
    except parse.Unreadable as error:
        return unreadable(error)
    except Refused as error:
        return Decoded(faults=[Fault(0, error.code, error.detail)])


def _read(content: bytes, context: Context, levels: list[str]) -> Decoded:
    host, plugin, kind = levels
    time, _, rest = scalar.text_of(content).partition(":")
    texts = rest.split(":", MAX_VALUES) if rest else []
    if not texts or len(texts) > MAX_VALUES:
        raise parse.Unreadable("bad_syntax", f"a message is a time and 1 to {MAX_VALUES} values, with colons between")
    record = Record(0, {}, measurement=MEASUREMENT, device=f"collectd:{host}" if context.is_gateway else None)
    _set_time(record, time, context)
    faults, absent = [], 0
    for name, text in zip(names_of(plugin, kind, len(texts)), texts, strict=True):
        value = None if text in NO_VALUES else scalar.read(text, "number")
        if value is None:
            absent += 1
        elif isinstance(value, tuple):
            faults.append(Fault(0, *value, name))
        else:
            record.fields[name] = value
    records = [record] if record.fields or faults else []
    return Decoded(records, faults, absent=absent, is_event=not records)


def names_of(plugin: str, kind: str, count: int) -> list[str]:
    """Give the names of a message's fields: `{plugin}.{type}`, and of several values what they are.

    Raises:
        Refused: a topic that names no field.
    """
    parts = segment(plugin), segment(kind)
    if not all(parts):
        raise Refused("bad_name", "a name is 1 to 256 bytes without control characters")
    name = ".".join(parts)
    return [name] if count == 1 else [f"{name}.{value}" for value in _values(kind.partition("-")[0], count)]


def _values(kind: str, count: int) -> tuple[str, ...]:
    known = NAMES.get(kind, ())
    return known if len(known) == count else tuple(str(at) for at in range(count))


def _set_time(record: Record, token: str, context: Context) -> None:
    try:
        time_ns, _ = times.read(token, "s")
    except ValueError as error:
        raise Refused("bad_time", str(error)) from None
    policy = times.policy_of(context.type) if context.type is not None else times.GUARDED
    place(record, time_ns, context.received_ns, policy)
