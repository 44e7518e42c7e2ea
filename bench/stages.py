"""What each stage of ingest and writer costs, us of CPU a message, in one process without HTTP and without a broker.

.venv/bin/python bench/stages.py [--messages 60000] [--devices 200] [--batch 50 500]

Each stage runs alone over the same messages, with what the stage before it gave; the load average hardly matters,
because CPU time is counted, not the clock. Messages are those of bench/load.py: 118 bytes, five fields, numbered.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import load  # noqa: E402
import results  # noqa: E402

import series  # noqa: E402
from ingest.batches import BatchSorting  # noqa: E402
from ingest.framing import Batch, Delivery, decode_batch, encode_batch  # noqa: E402
from ingest.message import Message  # noqa: E402
from ingest.quarantine import Quarantine  # noqa: E402
from ingest.spool import segments  # noqa: E402
from ingest.spool.batcher import GroupCommit  # noqa: E402
from ingest.spool.reader import SpoolReader  # noqa: E402
from ingest.writer.acks import AckBoard  # noqa: E402
from ingest.writer.dedupe import Dedupe, Deliveries  # noqa: E402
from ingest.writer.drain import Drain  # noqa: E402
from ingest.writer.feed import FeedBuffer, News, to_messages  # noqa: E402
from ingest.writer.gaps import Boots  # noqa: E402
from ingest.writer.state import BootReader, WriterState  # noqa: E402
from tests.ingest.intake_support import FakeCommit, World  # noqa: E402
from wire import clock  # noqa: E402

FIELDS = 5  # of load.READING
POSTING = 8  # devices that post lines
T = TypeVar("T")


class Costs:
    """Stages by name, in the order they were first met."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self.spent: dict[str, float] = {}

    def of(self, name: str, action: Callable[[], T]) -> T:
        cpu_s = time.process_time()
        outcome = action()
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - cpu_s
        return outcome

    def show(self, title: str) -> None:
        print(f"| {title} | " + " | ".join(f"{1e6 * cpu / self._messages:.1f}" for cpu in self.spent.values()) + " |")

    def head(self, title: str) -> None:
        print(f"\n| {title} | " + " | ".join(self.spent) + " |\n|---|" + "---|" * len(self.spent))


def numbers_of(options: argparse.Namespace) -> list[Any]:
    kind = load.Numbers if options.fields == FIELDS else functools.partial(Wide, options.fields)
    return [kind(f"b{index}") for index in range(options.devices)]


class Wide(load.Numbers):
    """Readings of another number of fields than the usual five."""

    def __init__(self, fields: int, boot: str) -> None:
        super().__init__(boot)
        self._fields = fields

    def reading(self) -> bytes:
        head = super().reading().partition(b'"values":')[0]
        fields = b",".join(b'"f%d":%d.25' % (n, (self._seq + n) % 50) for n in range(self._fields))
        return head + b'"values":{' + fields + b"}}"


def deliveries(options: argparse.Namespace) -> list[Delivery]:
    numbers = numbers_of(options)
    names = [f"bench-{index}" for index in range(options.devices)]
    return [
        Delivery(names[n % options.devices], f"devices/{names[n % options.devices]}/telemetry",
                 numbers[n % options.devices].reading(), clock.now_ns(), n % 65_535 + 1)
        for n in range(options.messages)
    ]  # fmt: skip


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def open_world(folder: Path, options: argparse.Namespace) -> World:
    folder.mkdir(parents=True)
    world = World(folder)
    for index in range(options.devices):
        world.registry.add(f"bench-{index}")
    return world


def measure_mqtt(folder: Path, options: argparse.Namespace, size: int) -> Costs:
    world, costs = open_world(folder / "world", options), Costs(options.messages)
    sent = deliveries(options)
    encoded = [encode_batch(Batch("bench", list(part))) for part in parts(sent, size)]
    for _ in range(3):  # devices and field types are known
        world.service.accept_batch(Batch("bench", sent[: options.devices]))
    group = GroupCommit(segments.open_spool(folder / "spool" / "json", limit_bytes=1 << 34, floor_bytes=0))
    ports = world.service._ports  # noqa: SLF001 - outside the product
    for content in encoded:
        batch = costs.of("take apart", lambda content=content: decode_batch(content))
        sorting = BatchSorting(ports, world.service.protocols, batch.bridge, world.service.children)
        costs.of("gate", lambda sorting=sorting, batch=batch: sorting.find_devices(batch.deliveries))
        costs.of("decode and check", lambda sorting=sorting, batch=batch: sorting.take_all(batch.deliveries))
        readings = costs.of("settle", lambda sorting=sorting: sorting.settle([]))
        costs.of("spool, fsync", lambda readings=readings: group.append(readings))
    group.close()
    world.close()
    return costs


def measure_lines(folder: Path, options: argparse.Namespace, size: int) -> Costs:
    world, costs = open_world(folder / "world", options), Costs(options.messages)
    world.commit.__class__ = Forgetful
    numbers = numbers_of(options)
    protocol = world.service.protocols["ndjson"]
    for turn in range(-2 * POSTING, options.messages // size):
        index = turn % POSTING
        content = b"\n".join([numbers[index].reading() for _ in range(size)])
        device = world.gate.find((f"bench-{index}",)).known[f"bench-{index}"]
        message = Message(device, protocol, content, clock.now_ns())
        if turn < 0:  # the types of its fields are learned
            world.service.accept(message)
        else:
            costs.of("all but the spool", lambda message=message: world.service.accept(message))
    world.close()
    return costs


class Forgetful(FakeCommit):
    """Keeps nothing."""

    def append(self, readings: Any) -> None:
        self.appends += len(readings)


def fill(folder: Path, options: argparse.Namespace) -> None:
    world = open_world(folder / "world", options)
    group = GroupCommit(segments.open_spool(folder / "spool" / "json", limit_bytes=1 << 34, floor_bytes=0))
    for part in parts(deliveries(options), 100):
        world.service.accept_batch(Batch("bench", list(part)))
        group.append(world.commit.readings)
        world.commit.readings.clear()
    group.close()
    world.close()


class Timed:
    """A part of the writer whose calls are counted under a name."""

    def __init__(self, inner: Any, costs: Costs, names: dict[str, str]) -> None:
        self._inner, self._costs, self._names = inner, costs, names

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._inner, method)
        if method not in self._names:
            return found
        return lambda *given, **named: self._costs.of(self._names[method], lambda: found(*given, **named))


def measure_writer(folder: Path, options: argparse.Namespace, size: int) -> Costs:
    fill(folder, options)
    costs = Costs(options.messages)
    state, store = WriterState(folder), series.open_writer("embedded:", folder)
    quarantine, feed = Quarantine(folder / "quarantine.db", limit_bytes=1 << 30), FeedBuffer()
    reader = Timed(Limited(SpoolReader(folder / "spool", state.positions()), size), costs, {"take": "read the spool"})
    timed_state = Timed(state, costs, {"commit": "remember"})
    timed_store = Timed(store, costs, {"write": "store"})
    news = News(feed, AckBoard(BootReader(folder).read))
    drain = Drain(
        reader,
        timed_state,
        timed_store,
        quarantine,
        Timed(news, costs, {"offer": "feed", "note": "acks"}),
    )
    drain._dedupe = Timed(Dedupe(Boots(state.load_boot), Deliveries([], 0)), costs, {"sift": "sift"})  # noqa: SLF001
    cpu_s, count = time.process_time(), 0
    while moved := drain.step():
        count += moved
    all_s = time.process_time() - cpu_s
    costs.spent["all"] = all_s
    assert count == options.messages, count
    costs.of("feed's JSON of each", lambda: list(to_messages(feed.take(time.monotonic()))))
    costs.spent["feed's JSON of each"] *= options.messages / 500
    for part in (state, store, quarantine):
        part.close()
    return costs


class Limited:
    """The spool's reader, with turns of a size."""

    def __init__(self, inner: SpoolReader, size: int) -> None:
        self._inner, self._size = inner, size

    def take(self, _limit: int) -> Any:
        return self._inner.take(self._size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


MEASURED = {
    "ingest, MQTT messages a batch": measure_mqtt,
    "ingest, lines a request": measure_lines,
    "writer, readings a turn": measure_writer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--fields", type=int, default=FIELDS)
    parser.add_argument("--batch", type=int, nargs="+", default=(50, 500))
    parser.add_argument("--turn", type=int, nargs="+", default=(100, 1_000, 5_000))
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {platform.python_version()},"
          f" load {os.getloadavg()[0]:.1f}, {options.messages:,} messages, {options.devices} devices")  # fmt: skip
    before, figures, lines = results.conditions(), {}, []
    for title, measure in MEASURED.items():
        for number, size in enumerate(options.turn if measure is measure_writer else options.batch):
            gc.collect()
            with tempfile.TemporaryDirectory() as folder:
                costs = measure(Path(folder), options, size)
            if not number:
                costs.head(title)
            costs.show(f"{size:,}")
            us = {name: round(1e6 * cpu / options.messages, 1) for name, cpu in costs.spent.items()}
            figures[f"{title}: {size:,}"] = us
            lines += [results.Line(f"{title}: {size:,}; {name}", cost, "us") for name, cost in us.items()]
    results.save("stages", before, figures, lines)


if __name__ == "__main__":
    main()
