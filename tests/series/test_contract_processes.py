"""Contract of every engine: several processes, several threads, death without warning."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from series.port import RangeQuery
from wire.points import Point

S = 1_000_000_000
DAY = 86_400 * S
T = 1_767_312_000 * S  # 2026-01-02 00:00 UTC
ROOT = Path(__file__).parents[2]

# Writes batches for ever, each over two days and with a column of its own kind; prints the number of each when acked.
WRITER = """
import sys
from pathlib import Path
from series import open_writer
from wire.points import Point
url, data, name, shared, batches = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
writer = open_writer(url, data)
for batch in range(batches):
    points = [
        Point(f"{name}-{at % 20}", "m", T + (at % 2) * DAY + (batch * 40 + at) * 1000, {"v": float(at), f"{name}{batch % 7}": batch})
        for at in range(40)
    ]
    points += [Point("shared", "m", T + batch * 1000, {name: batch, "both": 1.0})] * (shared == "shared")
    outcome = writer.write(points)
    assert not outcome.refused, outcome
    print(batch, flush=True)
writer.close()
""".replace("T +", f"{T} +").replace("* DAY", f"* {DAY}")


def _start(engine, name, batches, shared=""):
    command = [sys.executable, "-c", WRITER, engine.url, str(engine.data), name, shared, str(batches)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _count(reader, **query):
    return sum(1 for _ in reader.export(RangeQuery(-(2**63), 2**63, **query)))


def test_kill_after_the_answer_loses_nothing(engine):
    if not engine.writer().capabilities.ack_is_durable:
        pytest.skip("engine's answer is not durable")
    process = _start(engine, "victim", 100_000)
    acked = -1
    for line in process.stdout:
        acked = int(line)
        if acked >= 25:
            process.send_signal(signal.SIGKILL)
            break
    acked = max([acked, *(int(line) for line in process.stdout)])
    process.wait()
    process.stdout.close()

    engine.settle()
    reader, writer = engine.reader(), engine.writer()
    kept = {point.time_ns: point for point in reader.export(RangeQuery(-(2**63), 2**63))}
    for batch in range(acked + 1):
        for at in range(40):
            point = kept[T + (at % 2) * DAY + (batch * 40 + at) * 1000]
            assert point.fields == {"v": float(at), f"victim{batch % 7}": batch}
    assert writer.write([Point("after", "m", T, {"v": 1.0})]).accepted == 1
    reader.close()
    writer.close()


def test_processes_that_write_at_once_lose_nothing(engine):
    processes = [_start(engine, name, 30, "shared") for name in ("a", "b", "c", "e")]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert out.split() == [str(batch) for batch in range(30)]

    reader = engine.reader()
    shared = list(reader.export(RangeQuery(T, T + DAY, devices=["shared"])))
    assert [point.fields for point in shared] == [
        {"a": batch, "b": batch, "c": batch, "e": batch, "both": 1.0} for batch in range(30)
    ]
    assert _count(reader) == 4 * 30 * 40 + 30
    assert {point.device for point in reader.latest().points} == {f"{n}-{at}" for n in "abce" for at in range(20)} | {
        "shared"
    }
    reader.close()


def test_reader_sees_what_another_process_writes_at_once(engine):
    reader = engine.reader()
    process = _start(engine, "w", 10)
    for line in process.stdout:
        engine.settle()
        assert _count(reader) >= (int(line) + 1) * 40
    process.wait()
    process.stdout.close()
    reader.close()


def test_threads_share_a_writer_and_a_reader(store):
    faults = []

    def write(name):
        for batch in range(20):
            points = [Point(name, "m", T + batch * DAY + at, {"v": float(at), name: True}) for at in range(20)]
            faults.extend(store.writer.write(points).refused)

    def read():
        for _ in range(30):
            found = [(point.time_ns, point.device) for point in store.range(limit=50)]
            faults.extend([] if found == sorted(found) else found)
            store.reader.latest()

    _join(
        [threading.Thread(target=write, args=(f"t{at}",)) for at in range(3)]
        + [threading.Thread(target=read) for _ in range(3)]
    )

    assert faults == []
    assert _count(store.reader) == 3 * 20 * 20


def _join(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
