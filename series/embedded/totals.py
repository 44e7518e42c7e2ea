"""What an aggregate has found so far: joined over days, measurements and devices. Pure; knows no files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

from series.port import AggregateFn, AggregateRow
from wire.errors import BadRequest
from wire.points import FieldValue


class Edge(NamedTuple):
    """A first or last value, comparable by when and where it stood."""

    time_ns: int
    rank: int
    value: FieldValue


@dataclass(slots=True)
class Total:
    """What is known of one field in one bucket of one group."""

    count: int = 0
    numbers: int = 0  # how many of them are no strings
    sum: float | int = 0
    min: float | None = None
    max: float | None = None
    first: Edge | None = None
    last: Edge | None = None

    def add(self, other: Total) -> None:
        """Join what another day, measurement or type of field gave."""
        self.count += other.count
        self.numbers += other.numbers
        self.sum += other.sum
        lows = [one for one in (self.min, other.min) if one is not None]
        highs = [one for one in (self.max, other.max) if one is not None]
        self.min, self.max = min(lows, default=None), max(highs, default=None)

    def give(self, fns: tuple[AggregateFn, ...]) -> dict[str, FieldValue]:
        """Evaluate the functions that this field has values for."""
        values = {name: self._evaluate(name) for name in fns}
        return {name: value for name, value in values.items() if value is not None}

    def see(self, edge: Edge) -> None:
        """Take a value into account that may be the first or the last."""
        self.first = edge if self.first is None else min(self.first, edge)
        self.last = edge if self.last is None else max(self.last, edge)

    def _evaluate(self, name: AggregateFn) -> FieldValue | None:
        if name == "count":
            return self.count
        if name in {"first", "last"}:
            edge = self.first if name == "first" else self.last
            return None if edge is None else edge.value
        if not self.numbers:
            return None
        if name in {"min", "max"}:
            return self.min if name == "min" else self.max
        value = self.sum if name == "sum" else self.sum / self.numbers
        return value if isfinite(value) else None


@dataclass(slots=True)
class Totals:
    """All that a query found so far: (bucket start, group) -> field -> total."""

    max_rows: int
    cells: dict[tuple[int, str], dict[str, Total]] = field(default_factory=dict)

    def of(self, time_ns: int, group: str, name: str) -> Total:
        """Give the total to add to.

        Raises:
            BadRequest: that would be one row too many.
        """
        cell = self.cells.get((time_ns, group))
        if cell is None:
            if len(self.cells) >= self.max_rows:
                raise BadRequest(
                    f"the aggregate has more than {self.max_rows} rows: "
                    "take longer buckets, a shorter time or fewer devices",
                )
            cell = self.cells[time_ns, group] = {}
        return cell.setdefault(name, Total())

    def rows(self, fns: tuple[AggregateFn, ...]) -> Iterator[AggregateRow]:
        """Give the rows by time, then group; a row without values is left out."""
        for (time_ns, group), cell in sorted(self.cells.items(), key=lambda item: item[0]):
            values = {name: given for name, total in sorted(cell.items()) if (given := total.give(fns))}
            if values:
                yield AggregateRow(time_ns, group, values)
