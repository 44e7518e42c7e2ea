"""What decoding costs: us a message of 1, 10 and 100 values in each protocol, from bytes to records, and values/s.

.venv/bin/python bench/decode.py [--seconds 0.5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import orjson
import results

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Context
from ingest.protocols.otlp.messages import Request
from ingest.protocols.prometheus.messages import WriteRequest
from ingest.protocols.sparkplug.messages import Payload
from simulators.payloads import FORMATS
from wire import clock

COUNTS = (1, 10, 100)
LEAST_VALUES_S = 10_000.0  # of every protocol
DIALECTS: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {  # of JSON; with the time in ms
    "tasmota": lambda values, ms: {"Epoch": ms // 1_000, "ESP32": values},
    "zigbee2mqtt": lambda values, ms: values | {"last_seen": ms},
    "owntracks": lambda values, ms: values | {"_type": "location", "tst": ms // 1_000},
    "shelly": lambda values, ms: {
        "src": "shelly1-aabbccddeeff", "method": "NotifyStatus", "params": {"ts": ms / 1_000, "switch:0": values}
    },
    "chirpstack": lambda values, _ms: {"deviceInfo": {"devEui": "a84041000181c061"}, "object": values},
    "tts": lambda values, _ms: {
        "end_device_ids": {"device_id": "d", "application_ids": {"application_id": "a"}},
        "uplink_message": {"decoded_payload": values},
    },
}  # fmt: skip


def message(protocol: str, count: int) -> bytes:
    """Give a message of that many values, half of them floats, as its devices would send it."""
    values = {f"channel_{n}": 20.5 + n * 0.37 if n % 2 == 0 else n for n in range(count)}
    reading: dict[str, Any] = {"ts": clock.now_ns() // clock.NS_PER_MS, "values": values}
    if protocol in IN_PROTOBUF:
        return IN_PROTOBUF[protocol](values)
    if protocol in DIALECTS:
        return orjson.dumps(DIALECTS[protocol](values, reading["ts"]))
    encode = FORMATS[protocol].encode if protocol in FORMATS else None
    return encode(reading) if encode is not None else orjson.dumps(reading)


def sparkplug(values: dict[str, Any]) -> bytes:
    payload = Payload(timestamp=clock.now_ns() // clock.NS_PER_MS, seq=1)
    for name, value in values.items():
        metric = payload.metrics.add(name=name)
        is_float = isinstance(value, float)
        metric.datatype = 10 if is_float else 4
        setattr(metric, "double_value" if is_float else "long_value", value)
    content: bytes = payload.SerializeToString()
    return content


def otlp(values: dict[str, Any]) -> bytes:
    request = Request()
    scope = request.resource_metrics.add().scope_metrics.add()
    for name, value in values.items():
        point = scope.metrics.add(name=name).gauge.data_points.add(time_unix_nano=clock.now_ns())
        setattr(point, "as_double" if isinstance(value, float) else "as_int", value)
        point.attributes.add(key="room").value.string_value = "lab"
    content: bytes = request.SerializeToString()
    return content


def prometheus(values: dict[str, Any]) -> bytes:
    request = WriteRequest()
    for name, value in values.items():
        series = request.timeseries.add()
        series.labels.add(name="__name__", value=name)
        series.labels.add(name="job", value="node")
        series.samples.add(value=value, timestamp=clock.now_ns() // clock.NS_PER_MS)
    content: bytes = request.SerializeToString()
    return content


IN_PROTOBUF = {"sparkplug": sparkplug, "otlp": otlp, "prometheus": prometheus}


def cost_us(protocol: str, count: int, seconds: float) -> float:
    """Give the CPU time of decoding one message, in us."""
    decode, content = PROTOCOLS[protocol].decode, message(protocol, count)
    context = Context(clock.now_ns(), topic="spBv1.0/g/NDATA/n" if protocol == "sparkplug" else "")
    found = decode(content, context)
    assert not found.faults, (protocol, found.faults)
    assert sum(len(record.fields) for record in found.records) >= count, protocol
    turns, begun_s = 0, time.process_time()
    while (spent_s := time.process_time() - begun_s) < seconds:
        for _ in range(100):
            decode(content, context)
        turns += 100
    return spent_s / turns * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each")
    options = parser.parse_args()
    before = results.conditions()
    costs = {name: {count: round(cost_us(name, count, options.seconds), 2) for count in COUNTS} for name in PROTOCOLS}
    lines = []
    for name, found in costs.items():
        print(f"{name:12} " + "  ".join(f"{count:>3} values {us:>7.2f} us" for count, us in found.items()))
        worst = min(count / us * 1e6 for count, us in found.items())
        lines.append(results.Line(f"decoding {name}: 10 values", found[10], "us a message"))
        lines.append(results.Line("the same, values by one core, at least", round(worst), "/s", LEAST_VALUES_S))
    results.save("decode", before, {"us": costs}, lines)


if __name__ == "__main__":
    main()
