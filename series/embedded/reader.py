"""The querying half of the embedded engine: read-only, beside the writing process, never in its way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from series.embedded import catalog
from series.embedded import cursor as cursors
from series.embedded.aggregate import read_aggregate
from series.embedded.count import count_points
from series.embedded.directory import decode_tags, walk_latest
from series.embedded.files import Files
from series.embedded.latest import Group
from series.embedded.pages import read_page
from series.port import AggregateQuery, AggregateRow, Capabilities, Page, RangeQuery
from wire.errors import BadRequest, StoreUnavailable
from wire.points import Point

EXPORT_PAGE = 5_000  # points held in memory at once while exporting


class EmbeddedReader:
    """SeriesReader over a folder that may be empty, missing or written to meanwhile. Thread-safe."""

    capabilities = Capabilities()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._catalog = folder / catalog.FILE
        self._files = Files()

    def latest(
        self,
        devices: Sequence[str] = (),
        fields: Sequence[str] = (),
        *,
        limit: int = 1_000,
        cursor: str | None = None,
        tenant: str = "default",
    ) -> Page:
        """Give the newest values; of one series the newest time comes first."""
        if limit < 1:
            raise BadRequest(f"limit {limit} is less than 1", fields=["limit"])
        after = None
        if cursor is not None:
            last = cursors.read_latest(cursor)
            after = (tenant, last.device, last.measurement, last.tags)
        points: list[Point] = []
        count, wanted = 0, frozenset(fields)
        with self._files.lend(self._catalog) as connection:
            if connection is None:
                return Page([])
            for key, groups in walk_latest(connection, tenant, devices, after):
                found = _points_of(key, groups, wanted)
                if not found:
                    continue
                if count == limit:
                    assert after is not None
                    return Page(points, cursors.after_series(after))
                points += found
                count, after = count + 1, key
        return Page(points)

    def range(self, query: RangeQuery) -> Page:
        """Give a page of points, by time, device, measurement, tags."""
        return read_page(self._files, self._folder, self._catalog, query)

    def count(self, query: RangeQuery) -> int:
        """Count points, those of a series with the same time being one."""
        return count_points(self._files, self._folder, self._catalog, query)

    def aggregate(self, query: AggregateQuery) -> list[AggregateRow]:
        """Give aggregates; no fields means all."""
        return read_aggregate(self._files, self._folder, self._catalog, query)

    def export(self, query: RangeQuery) -> Iterator[Point]:
        """Give all points of a range, a page at a time; points written meanwhile may or may not be among them."""
        page = self.range(replace(query, limit=EXPORT_PAGE, cursor=None))
        yield from page.points
        while page.next is not None:
            page = self.range(replace(query, limit=EXPORT_PAGE, cursor=page.next))
            yield from page.points

    def health(self) -> str:
        """Tell "ok" also of a store that does not exist yet."""
        try:
            with self._files.lend(self._catalog) as connection:
                if connection is not None:
                    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except StoreUnavailable as error:
            return error.detail
        return "ok"

    def close(self) -> None:
        """Close the idle connections."""
        self._files.close()


def _points_of(
    key: catalog.Key,
    groups: Sequence[Group],
    wanted: frozenset[str],
) -> list[Point]:
    tenant, device, measurement, packed = key
    tags = decode_tags(packed)
    points = []
    for time_ns, held in groups:
        fields = {name: value for name, value in held.items() if name in wanted} if wanted else held
        if fields:
            points.append(Point(device, measurement, time_ns, fields, tags, tenant))
    return points
