"""A batch on its way to rows: which points and fields are taken, and which rows of which day they make.

Two ways lead there. As long as all points of a series in a batch have the same fields of the types they always had,
their rows are only laid down one after another. From the first point on that differs, a series goes the careful way,
which looks at each field and merges what has the same time; its rows are written behind the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from series.embedded.catalog import Catalog, Series
from series.embedded.days import BUCKET_NS, DAY_NS, Target
from series.embedded.plans import Plan, encode_each
from series.embedded.values import Stored, Unfit, accept, check_name
from series.port import Refusal
from wire.clock import MAX_NS, MIN_NS
from wire.points import FieldValue, PointLike

Rows = dict[tuple[int, int], tuple[Plan, tuple[Stored, ...], int]]  # (sid, time) -> fields of a row, who judged it


Forms = list[tuple[Target, Sequence[tuple[Any, ...]]]]


@dataclass(slots=True, eq=False)
class _Stream:
    """The points of one series in a batch, as long as they are alike; `plan` None: they are not."""

    series: Series | None = None
    plan: Plan | None = None
    names: tuple[str, ...] | None = None  # of the fields; None matches no point
    newest_ns: int = MIN_NS - 1
    newest: tuple[int, dict[str, FieldValue]] | None = None  # index of the point, its fields


_UNEVEN = _Stream()


class Batch:
    """Sorts points into rows by day; the same (series, time) merges, later points winning."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.refused: list[Refusal] = []
        self.accepted = 0
        self._streams: dict[tuple[str, str, str], _Stream] = {}
        self._even: dict[int, dict[int, tuple[Plan, list[tuple[Any, ...]]]]] = {}  # day -> series -> its rows
        self._careful: dict[int, Rows] = {}
        self._closed: list[_Stream] = []  # streams of series that went on the careful way
        # (sid, form) -> newest point of that form: a batch often holds many points of a series.
        self._newest: dict[tuple[int, Plan], tuple[int, int, Series, dict[str, FieldValue]]] = {}

    def add_all(self, points: Iterable[PointLike]) -> None:
        """Take points, or note why not."""
        streams = self._streams
        start_ns = end_ns = 0
        by_series: dict[int, tuple[Plan, list[tuple[Any, ...]]]] = {}
        for index, point in enumerate(points):
            fields, time_ns, key = point.fields, point.time_ns, (point.device, point.measurement, point.tenant)
            stream = _UNEVEN if point.tags else (streams.get(key) or self._open(key, fields))
            plan, series = stream.plan, stream.series
            values = plan.row(fields) if plan is not None and stream.names == tuple(fields) else None
            if values is None or series is None or plan is None or not MIN_NS <= time_ns <= MAX_NS:
                if not point.tags:
                    self._close(key)
                self._add(index, point)  # new, tagged, or not as it should be
                continue
            if not start_ns <= time_ns < end_ns:
                start_ns = time_ns // DAY_NS * DAY_NS
                end_ns, by_series = start_ns + DAY_NS, self._even.setdefault(time_ns // DAY_NS, {})
            rows = by_series.get(series.sid)
            if rows is None:
                rows = by_series[series.sid] = plan, []
            rows[1].append(((time_ns - start_ns) // BUCKET_NS, series.sid, time_ns, point.judged_by or None, *values))
            self.accepted += 1
            if time_ns >= stream.newest_ns and point.moves_latest:
                stream.newest_ns, stream.newest = time_ns, (index, fields)

    def by_day(self) -> Iterator[tuple[int, Forms, set[int]]]:
        """Give each day's rows by form, and its series; within a form by series, which keeps the tree's pages hot."""
        for day in sorted(self._even.keys() | self._careful.keys()):
            even, careful = self._even.get(day, {}), self._careful.get(day, {})
            forms: dict[Plan, list[tuple[Any, ...]]] = {}
            for sid in sorted(even):
                plan, rows = even[sid]
                forms.setdefault(plan, []).extend(rows)
            found = [(plan.target, rows) for plan, rows in forms.items()]
            yield day, [*found, *_careful_forms(day, careful)], even.keys() | {sid for sid, _ in careful}

    def moves(self) -> list[tuple[Series, int, dict[str, FieldValue]]]:
        """Candidates for the latest values, in the order of the batch."""
        found = [(index, series, time_ns, fields) for time_ns, index, series, fields in self._newest.values()]
        for stream in [*self._streams.values(), *self._closed]:
            if stream.series is not None and stream.newest is not None:
                index, fields = stream.newest
                found.append((index, stream.series, stream.newest_ns, fields))
        found.sort(key=itemgetter(0))
        return [(series, time_ns, fields) for _, series, time_ns, fields in found]

    def _open(self, key: tuple[str, str, str], fields: dict[str, FieldValue]) -> _Stream:
        device, measurement, tenant = key
        series, names = self._catalog.known.get((tenant, device, measurement, "")), tuple(fields)
        plan = series.shape.plans.get(names) if series is not None else None
        stream = self._streams[key] = _UNEVEN if plan is None else _Stream(series, plan, names)
        return stream

    def _close(self, key: tuple[str, str, str]) -> None:
        """Let a series go the careful way: a row laid down later than these must be written later."""
        stream = self._streams[key]
        if stream is not _UNEVEN:
            self._closed.append(stream)
            self._streams[key] = _UNEVEN

    def _add(self, index: int, point: PointLike) -> None:
        try:
            series = self._check(point)
        except Unfit as unfit:
            self.refused.append(Refusal(index, unfit.code, unfit.detail))
            return
        fields = point.fields
        names = tuple(fields)
        plan = series.shape.plans.get(names)
        values = plan.encode(fields) if plan is not None else None
        if plan is None or values is None:
            fields = self._sift(index, series, point)
            if not fields:
                return
            names = tuple(fields)
            plan = series.shape.plan(names)
            values = encode_each(fields.values())
        self.accepted += 1
        self._place(series, point, plan, values)
        if point.moves_latest:
            self._note_newest(index, point.time_ns, series, plan, fields)

    def _note_newest(self, index: int, time_ns: int, series: Series, plan: Plan, fields: dict[str, FieldValue]) -> None:
        key = series.sid, plan
        newest = self._newest.get(key)
        if newest is None or time_ns >= newest[0]:
            self._newest[key] = time_ns, index, series, fields

    def _check(self, point: PointLike) -> Series:
        if not MIN_NS <= point.time_ns <= MAX_NS:
            raise Unfit("bad_time", "the time lies outside signed 64-bit ns")
        if not point.fields:
            raise Unfit("no_values", "the point has no fields")
        return self._catalog.find(point)

    def _sift(self, index: int, series: Series, point: PointLike) -> dict[str, FieldValue]:
        """Keep the fields that fit, with ints widened where the field is a float; refuse the others one by one."""
        kept: dict[str, FieldValue] = {}
        new: dict[str, int] = {}
        for name, value in point.fields.items():
            known = series.shape.types.get(name)
            try:
                check_name(name, "the field's name")
                code, kept[name] = accept(value, known)
            except Unfit as unfit:
                self.refused.append(Refusal(index, unfit.code, unfit.detail, name))
                continue
            if known is None:
                new[name] = code
        if new:
            self._extend(index, series, new, kept)
        return kept

    def _extend(self, index: int, series: Series, new: dict[str, int], kept: dict[str, FieldValue]) -> None:
        unnumbered = [name for name in new if name not in series.shape.measurement.numbers]
        for name in unnumbered[self._catalog.room(series) :]:
            detail = "the measurement has as many fields as it may have"
            self.refused.append(Refusal(index, "too_many_fields", detail, name))
            del kept[name], new[name]
        if new:
            self._catalog.extend(series, new)

    def _place(self, series: Series, point: PointLike, plan: Plan, values: tuple[Stored, ...]) -> None:
        rows = self._careful.setdefault(point.time_ns // DAY_NS, {})
        key = (series.sid, point.time_ns)
        judged_by = point.judged_by
        old = rows.get(key)
        if old is not None and old[0] is not plan:
            merged = dict(zip(old[0].names, old[1], strict=True)) | dict(zip(plan.names, values, strict=True))
            plan, values = series.shape.plan(tuple(merged)), tuple(merged.values())
        if old is not None:
            judged_by = judged_by or old[2]
        rows[key] = (plan, values, judged_by)


def _careful_forms(day: int, rows: Rows) -> Iterator[tuple[Target, Sequence[tuple[Any, ...]]]]:
    forms: dict[Plan, list[tuple[Any, ...]]] = {}
    start_ns = day * DAY_NS
    for (sid, time_ns), (plan, values, judged_by) in rows.items():
        row = ((time_ns - start_ns) // BUCKET_NS, sid, time_ns, judged_by or None, *plan.lay_out(values))
        forms.setdefault(plan, []).append(row)
    for plan, listed in forms.items():
        listed.sort()  # (bucket, sid, time) is never twice among them, so values are not compared
        yield plan.target, listed
