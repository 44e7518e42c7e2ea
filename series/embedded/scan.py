"""Reading one day file: which rows, by which way through the tree. Knows numbers, not names.

One or a few series are sought minute by minute; most of the fleet is scanned through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from series.embedded.days import BUCKET_NS, BUCKETS_PER_DAY, DAY_NS, MINUTES, SEEK_BELOW, columns_of, is_marked, path_of
from series.embedded.files import Files
from series.embedded.sql import number, select


class Span(NamedTuple):
    """Part of a day: first and last minute, first and last time, all included."""

    low: int
    high: int
    first_ns: int
    last_ns: int


def span_of(day: int, start_ns: int, end_ns: int) -> Span:
    """Cut [start_ns, end_ns) to a day."""
    day_ns = day * DAY_NS
    first, last = max(start_ns, day_ns), min(end_ns, day_ns + DAY_NS) - 1
    return Span((first - day_ns) // BUCKET_NS, min((last - day_ns) // BUCKET_NS, BUCKETS_PER_DAY - 1), first, last)


class Day:
    """One snapshot of a day file, with the chosen series loaded into it."""

    def __init__(self, connection: apsw.Connection, day: int) -> None:
        self.connection = connection
        self.number = day
        self._columns: dict[int, set[int]] = {}
        self._marked: dict[int, bool] = {}
        self._series = number(connection, "SELECT count(*) FROM present")

    def choose(self, rows: Iterable[tuple[int, int, int]]) -> dict[int, int]:
        """Set the wanted series as (sid, rank, part); gives how many of each part have rows in this file."""
        self.connection.execute("DELETE FROM temp.chosen")
        self.connection.executemany("INSERT INTO temp.chosen VALUES (?,?,?)", rows)
        self.connection.execute("DELETE FROM temp.chosen WHERE sid NOT IN (SELECT sid FROM present)")
        counts = select(self.connection, "SELECT part, count(*) FROM temp.chosen GROUP BY part")
        return {part: count for part, count in counts}  # noqa: C416 - the types of a row are not known otherwise

    def expression(self, table: int, column: int, own_columns: int) -> str | None:
        """SQL of a field's value in a row `m`; None when the file knows neither its column nor its table."""
        if table not in self._columns:
            has_table = self.connection.execute("SELECT 1 FROM sqlite_schema WHERE name=?", (f"m{table}",)).fetchone()
            self._columns[table] = columns_of(self.connection, table) if has_table else {-1}
        known = self._columns[table]
        if -1 in known:
            return None
        if column >= own_columns:
            return f"pick_extra(m.extra,{column})"
        return f"m.f{column}" if column in known else None

    def judged(self, table: int) -> str:
        """SQL of the version that judged a row `m`; NULL where the file is older than the mark."""
        if table not in self._marked:
            self._marked[table] = is_marked(self.connection, table)
        return "m.judged" if self._marked[table] else "NULL"

    def is_sought(self, chosen: int) -> bool:
        """Tell whether so many series are sought minute by minute, and not scanned for."""
        return chosen * SEEK_BELOW < self._series

    def source(self, table: int, chosen: int) -> str:
        """SQL from FROM to the end of WHERE for the chosen series `c`; bind with `bindings`."""
        if self.is_sought(chosen):
            rows = f"({MINUTES}) b CROSS JOIN temp.chosen c CROSS JOIN m{table} m ON m.bucket=b.n AND m.sid=c.sid"
        else:
            rows = f"m{table} m CROSS JOIN temp.chosen c ON c.sid=m.sid AND m.bucket BETWEEN :low AND :high"
        return f"FROM {rows} WHERE m.ts BETWEEN :first AND :last"


def bindings(span: Span, **more: Any) -> dict[str, Any]:
    """Bind a span to `Day.source`, and what else the statement names."""
    return {"low": span.low, "high": span.high, "first": span.first_ns, "last": span.last_ns, **more}


@contextmanager
def open_day(files: Files, folder: Path, day: int) -> Iterator[Day | None]:
    """Lend one snapshot of a day; None when its file is gone or not yet set up."""
    with files.lend(path_of(folder, day)) as connection:
        if connection is None:
            yield None
            return
        connection.execute("BEGIN")
        is_set_up = connection.execute("SELECT 1 FROM sqlite_schema WHERE name='present'").fetchone() is not None
        yield Day(connection, day) if is_set_up else None
        connection.execute("COMMIT")
