"""A batch on its way to rows: which points and fields are taken, and which rows of which day they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from series.embedded.catalog import Catalog, Series
from series.embedded.days import BUCKET_NS, DAY_NS, Target
from series.embedded.plans import Plan, encode_each
from series.embedded.values import Stored, Unfit, accept, check_name
from series.port import Refusal
from wire.clock import MAX_NS, MIN_NS
from wire.points import FieldValue, PointLike

Rows = dict[tuple[int, int], tuple[Plan, tuple[Stored, ...]]]  # (sid, time) -> the fields of one row


class Batch:
    """Sorts points into rows by day; the same (series, time) merges here already, later points winning."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.days: dict[int, Rows] = {}
        self.refused: list[Refusal] = []
        self.accepted = 0
        # (sid, form) -> newest point of that form: a batch often holds many points of a series.
        self._newest: dict[tuple[int, Plan], tuple[int, int, Series, dict[str, FieldValue]]] = {}

    def add_all(self, points: Iterable[PointLike]) -> None:
        """Take points, or note why not."""
        known, days = self._catalog.known, self.days
        for index, point in enumerate(points):
            fields, time_ns = point.fields, point.time_ns
            series = None if point.tags else known.get((point.tenant, point.device, point.measurement, ""))
            plan = series.shape.plans.get(tuple(fields)) if series is not None else None
            values = plan.encode(fields) if plan is not None else None
            if series is None or plan is None or values is None or not MIN_NS <= time_ns <= MAX_NS:
                self._add(index, point)  # new, tagged, or not as it should be
                continue
            self.accepted += 1
            rows, key = days.get(time_ns // DAY_NS), (series.sid, time_ns)
            if rows is None or key in rows:
                self._place(series, time_ns, plan, values)
            else:
                rows[key] = plan, values
            if point.moves_latest:
                self._note_newest(index, time_ns, series, plan, fields)

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
        self._place(series, point.time_ns, plan, values)
        if point.moves_latest:
            self._note_newest(index, point.time_ns, series, plan, fields)

    def _note_newest(self, index: int, time_ns: int, series: Series, plan: Plan, fields: dict[str, FieldValue]) -> None:
        key = series.sid, plan
        newest = self._newest.get(key)
        if newest is None or time_ns >= newest[0]:
            self._newest[key] = time_ns, index, series, fields

    def moves(self) -> list[tuple[Series, int, dict[str, FieldValue]]]:
        """Candidates for the latest values, in the order of the batch."""
        ordered = sorted(self._newest.values(), key=lambda newest: newest[1])
        return [(series, time_ns, fields) for time_ns, _, series, fields in ordered]

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

    def _place(self, series: Series, time_ns: int, plan: Plan, values: tuple[Stored, ...]) -> None:
        rows = self.days.setdefault(time_ns // DAY_NS, {})
        key = (series.sid, time_ns)
        old = rows.get(key)
        if old is not None and old[0] is not plan:
            merged = dict(zip(old[0].names, old[1], strict=True)) | dict(zip(plan.names, values, strict=True))
            plan, values = series.shape.plan(tuple(merged)), tuple(merged.values())
        rows[key] = (plan, values)


def rows_of_day(day: int, rows: Rows) -> Iterator[tuple[Target, Sequence[tuple[Any, ...]]]]:
    """Give the rows by form, each form in the order of the key, which keeps the tree's pages hot."""
    forms: dict[Plan, list[tuple[Any, ...]]] = {}
    start_ns = day * DAY_NS
    for (sid, time_ns), (plan, values) in rows.items():
        row = ((time_ns - start_ns) // BUCKET_NS, sid, time_ns, *plan.lay_out(values))
        forms.setdefault(plan, []).append(row)
    for plan, listed in forms.items():
        listed.sort()  # (bucket, sid, time) is never twice in a batch, so values are not compared
        yield plan.target, listed
