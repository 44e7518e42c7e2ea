"""What decoding costs: us a message of 1, 10 and 100 values in each protocol, from bytes to records, and values/s.

.venv/bin/python bench/decode.py [--seconds 0.5]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import results  # noqa: E402

from ingest.protocols import PROTOCOLS  # noqa: E402
from ingest.protocols.base import Context  # noqa: E402
from tests.ingest.samples import Sample, made  # noqa: E402
from wire import clock  # noqa: E402

COUNTS = (1, 10, 100)
VALUED = [name for name in PROTOCOLS if name != "media"]  # a blob holds no values
LEAST_VALUES_S = 10_000.0  # of every protocol


def message(protocol: str, count: int) -> Sample:
    """Give a message of that many values, half of them floats, as its devices would send it."""
    values = {f"channel_{n}": 20.5 + n * 0.37 if n % 2 == 0 else n for n in range(count)}
    return made(protocol, values, clock.now_ns() // clock.NS_PER_MS)


def cost_us(protocol: str, count: int, seconds: float) -> float:
    """Give the CPU time of decoding one message, in us."""
    decode, (content, topic) = PROTOCOLS[protocol].decode, message(protocol, count)
    context = Context(clock.now_ns(), topic=topic, transport="mqtt" if topic else "http")
    found = decode(content, context)
    assert not found.faults, (protocol, found.faults)
    assert sum(len(record.fields) for record in found.records) + len(found.described) >= count, protocol
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
    costs = {name: {count: round(cost_us(name, count, options.seconds), 2) for count in COUNTS} for name in VALUED}
    lines = []
    for name, found in costs.items():
        print(f"{name:12} " + "  ".join(f"{count:>3} values {us:>7.2f} us" for count, us in found.items()))
        worst = min(count / us * 1e6 for count, us in found.items())
        lines.append(results.Line(f"decoding {name}: 10 values", found[10], "us a message"))
        lines.append(results.Line("the same, values by one core, at least", round(worst), "/s", LEAST_VALUES_S))
    results.save("decode", before, {"us": costs}, lines)


if __name__ == "__main__":
    main()
