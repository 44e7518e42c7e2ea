"""Key orders of the embedded store's day files, side by side: ingest rate, one device's day, the whole fleet.

    python bench/store_keys.py --folder /var/tmp/keys --hours 24 --interval 10 --batch 1000

Behind docs/decisions/0003-embedded-store.md. Plain tables of five floats, WAL, synchronous=FULL, one writer.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

S = 10**9
DAY_NS = 86_400 * S
BASE = 20_000 * DAY_NS
DEVICES = 1_000
UPSERT = ", ".join(f"f{n}=coalesce(excluded.f{n}, f{n})" for n in range(5))
COLUMNS = "bucket INTEGER NOT NULL, sid INTEGER NOT NULL, ts INTEGER NOT NULL, f0, f1, f2, f3, f4"


def open_table(path: Path, key: str) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-8192"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute(f"CREATE TABLE m ({COLUMNS}, PRIMARY KEY ({key})) WITHOUT ROWID")
    return connection


def batches(bucket_s: int, args: argparse.Namespace) -> Iterator[list[tuple[float, ...]]]:
    """Rows as they arrive: all devices, then the next turn."""
    rows: list[tuple[float, ...]] = []
    for turn in range(int(args.hours * 3_600 / args.interval)):
        for sid in range(DEVICES):
            ts = BASE + int(turn * args.interval * S) + sid * 1_000
            bucket = (ts - BASE) // (bucket_s * S) if bucket_s else 0
            rows.append((bucket, sid, ts, turn * 0.37, sid * 1.21, turn * 0.11, sid / 3, turn / 7))
            if len(rows) == args.batch:
                yield rows
                rows = []


def load(connection: apsw.Connection, key: str, bucket_s: int, args: argparse.Namespace) -> tuple[float, float, int]:
    sql = f"INSERT INTO m VALUES (?,?,?,?,?,?,?,?) ON CONFLICT ({key}) DO UPDATE SET {UPSERT}"
    took: list[float] = []
    count = 0
    for rows in batches(bucket_s, args):
        started = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(sql, rows)
        connection.execute("COMMIT")
        took.append(time.perf_counter() - started)
        count += len(rows)
    return count / sum(took), statistics.quantiles(took, n=100)[98] * 1e3, count


def device_sql(bucket_s: int, what: str, tail: str) -> str:
    if not bucket_s:
        return f"SELECT {what} FROM m WHERE bucket=0 AND sid=77 {tail}"
    return (
        f"WITH RECURSIVE b(n) AS (SELECT 0 UNION ALL SELECT n+1 FROM b WHERE n < {86_400 // bucket_s - 1}) "
        f"SELECT {what} FROM b CROSS JOIN m ON m.bucket=b.n AND m.sid=77 {tail}"
    )


def timed(action: Callable[[], object]) -> float:
    took = []
    for _ in range(5):
        started = time.perf_counter()
        action()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


def measure(name: str, key: str, bucket_s: int, args: argparse.Namespace) -> None:
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / f"{name}.db"
    connection = open_table(path, key)
    rate, p99, count = load(connection, key, bucket_s, args)
    raw = device_sql(bucket_s, "ts, f1", "")
    mean = device_sql(bucket_s, f"(ts-{BASE})/300000000000, total(f1), count(f1), min(f1), max(f1)", "GROUP BY 1")
    hour = 3_600 * S
    million = BASE + int(1_000 * args.interval) * S
    end = f"bucket < {(million - BASE) // (bucket_s * S)}" if bucket_s else f"ts < {million}"
    fleet = f"SELECT sid, (ts-{BASE})/{hour}, count(f1), total(f1) FROM m WHERE {end} GROUP BY 1, 2"
    if bucket_s:
        fleet = (
            f"SELECT sid, bucket/{max(1, 3_600 // bucket_s)}, sum(c), sum(t) FROM "
            f"(SELECT bucket, sid, count(f1) c, total(f1) t FROM m WHERE {end} GROUP BY bucket, sid) GROUP BY 1, 2"
        )
    figures = [timed(lambda sql=sql: connection.execute(sql).fetchall()) for sql in (raw, mean, fleet)]
    connection.close()
    size = path.stat().st_size / count
    print(f"{name:14} {rate:>9,.0f} {p99:>8.1f} {size:>6.0f}" + "".join(f"{one:>10.1f}" for one in figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--keys", default="time,10,30,60,300,device")
    args = parser.parse_args()
    print(f"{args.hours} h of {DEVICES} devices, each {args.interval} s, batches of {args.batch}")
    print(f"{'key':14} {'rows/s':>9} {'p99 ms':>8} {'B/row':>6}   raw day  5min mean  fleet 1 h (ms)")
    for key in args.keys.split(","):
        try:
            if key == "time":
                measure("ts,sid", "ts, sid", 0, args)
            elif key == "device":
                measure("sid,ts", "sid, ts", 0, args)
            else:
                measure(f"{key}s,sid,ts", "bucket, sid, ts", int(key), args)
        finally:
            shutil.rmtree(args.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
