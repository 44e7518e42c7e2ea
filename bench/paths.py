"""Messages a second through the whole path in each protocol: device, broker, bridge, its service, disk, store.

    .venv/bin/python bench/paths.py [--messages 2000]

Ten values each, at QoS 1 on the device's own topic of the protocol, by one client as fast as it can; until the last is
in the store. Left out are protocols whose messages mean something only after those before them, or only on topics of
their own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import results  # noqa: E402
from isolation import connect, kept  # noqa: E402

from ingest.protocols import PROTOCOLS  # noqa: E402
from tests.e2e.platform import Installation  # noqa: E402
from tests.ingest.samples import made  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402
from wire import clock  # noqa: E402

VALUES = {f"channel_{n}": 20.5 + n * 0.37 if n % 2 == 0 else n for n in range(10)}
PATIENCE_S = 6.0


def rate(installation: Installation, protocol: str, count: int) -> float:
    """Send so many messages and give how many a second arrived in the store."""
    device = installation.add_device(f"path-{protocol}")
    installation.wait_for_broker(device)
    client, topic = connect(installation, device), f"devices/{device.id}/telemetry/{protocol}"
    now_ms = clock.now_ns() // clock.NS_PER_MS
    contents = [made(protocol, VALUES, now_ms - number * 1_000).content for number in range(count + 1)]

    def send(some: list[bytes], readings: int) -> None:
        had = kept(installation)
        for content in some:
            client.publish(topic, content, qos=1)
        wait_until(lambda: kept(installation) >= had + readings, PATIENCE_S, every_s=0.02, what=protocol)

    had = kept(installation)
    send(contents[:1], 1)  # starts its service, and teaches it the fields
    of_each = kept(installation) - had
    begun_s = time.monotonic()
    send(contents[1:], of_each * count)
    taken_s = time.monotonic() - begun_s
    client.disconnect()
    client.loop_stop()
    return count / taken_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2_000, help="of each protocol")
    options = parser.parse_args()
    before, found = results.conditions(), dict[str, int]()
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Path(folder) / "data").start()
        for name, protocol in PROTOCOLS.items():
            if protocol.host:
                continue
            try:
                found[name] = round(rate(installation, name, options.messages))
            except AssertionError as error:
                print(f"{name:16} none: {error}")
                continue
            print(f"{name:16} {found[name]:>7,} messages/s, {10 * found[name]:>8,} values/s")
        installation.stop()
    what = "over MQTT into the store, 10 values"
    lines = [results.Line(f"{name} {what}", seen, "messages/s") for name, seen in found.items()]
    results.save("paths", before, {"messages": options.messages, "per_second": found}, lines)


if __name__ == "__main__":
    main()
