"""Contract of every engine: random histories of writes agree with a model of a few lines."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from series.port import AggregateQuery
from tests.series.conftest import ENGINES, Store
from wire.points import INT64_MIN, UINT64_MAX, Point

S = 1_000_000_000
DAY = 86_400 * S
T = 1_767_312_000 * S

values = {
    "float": st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300),
    "int": st.integers(INT64_MIN, UINT64_MAX),
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
}
NAMES = [f"{kind}{at}" for kind in values for at in range(3)]
times = st.one_of(
    st.integers(T - 2 * DAY, T + DAY),
    st.integers(-2 * DAY, DAY),
    st.sampled_from([-(2**63), 2**63 - 1, 0, -1, T]),
    st.integers(0, 5).map(lambda at: T + at),
)
fields = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: values[name[:-1]] for name in names}),
)
points = st.builds(
    Point,
    device=st.sampled_from(["d1", "d2", "é"]),
    measurement=st.sampled_from(["m", "n"]),
    time_ns=times,
    fields=fields,
    tags=st.sampled_from([{}, {"k": "v"}]),
    moves_latest=st.booleans(),
)
histories = st.lists(st.lists(points, max_size=12), max_size=6)


class Model:
    """What the store should hold."""

    def __init__(self):
        self.rows = defaultdict(dict)
        self.latest = defaultdict(dict)

    def take(self, point):
        series = (point.device, point.measurement, tuple(point.tags.items()))
        self.rows[point.time_ns, *series].update(point.fields)
        if point.moves_latest:
            newest = self.latest[series]
            newest.update(
                {
                    name: (point.time_ns, value)
                    for name, value in point.fields.items()
                    if name not in newest or newest[name][0] <= point.time_ns
                }
            )

    def reduce(self, name, every_ns):
        cells = defaultdict(list)
        for (time_ns, device, measurement, tags), fields in self.rows.items():
            if name in fields:
                start = max(time_ns // every_ns * every_ns, -(2**63))
                cells[start, device].append((time_ns, measurement, tags, fields[name]))
        return {cell: [value for *_, value in sorted(found, key=lambda one: one[:3])] for cell, found in cells.items()}


def _key(point):
    return point.time_ns, point.device, point.measurement, tuple(point.tags.items())


@pytest.mark.parametrize("kind", ENGINES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    history=histories,
    limit=st.integers(1, 9),
    every_ns=st.sampled_from([1, 60 * S, 7 * 60 * S, 3_600 * S, DAY, 9 * DAY]),
)
def test_any_history_agrees_with_the_model(kind, history, limit, every_ns):
    with tempfile.TemporaryDirectory() as folder:
        store, model = Store(ENGINES[kind](Path(folder))), Model()
        try:
            for batch in history:
                store.take(*batch)
                for point in batch:
                    model.take(point)
            _compare_ranges(store, model, limit)
            _compare_latest(store, model)
            for name in NAMES:
                _compare_aggregates(store, model, name, every_ns)
        finally:
            store.close()


def _compare_ranges(store, model, limit):
    assert store.count() == len(model.rows)
    expected = [(key, repr(sorted(fields.items()))) for key, fields in sorted(model.rows.items())]
    found, cursor = [], None
    while True:
        page = store.page(limit=limit, cursor=cursor)
        found += page.points
        cursor = page.next
        if cursor is None:
            break
    assert [(_key(point), repr(sorted(point.fields.items()))) for point in found] == expected


def _compare_latest(store, model):
    found = defaultdict(dict)
    for point in store.reader.latest().points:
        for name, value in point.fields.items():
            found[_key(point)[1:]][name] = (point.time_ns, value)
    assert repr(sorted((key, sorted(one.items())) for key, one in found.items())) == repr(
        sorted((key, sorted(one.items())) for key, one in model.latest.items()),
    )


def _compare_aggregates(store, model, name, every_ns):
    fns = (
        ["count", "first", "last"]
        if name.startswith("string")
        else ["count", "first", "last", "min", "max", "sum", "mean"]
    )
    query = AggregateQuery(-(2**63), 2**63, every_ns, [name], fns)
    found = {(row.time_ns, row.group): row.values[name] for row in store.reader.aggregate(query)}
    expected = model.reduce(name, every_ns)
    assert found.keys() == expected.keys()
    for cell, held in expected.items():
        assert found[cell]["count"] == len(held)
        assert repr((found[cell]["first"], found[cell]["last"])) == repr((held[0], held[-1]))
        if "sum" in fns:
            assert (found[cell]["min"], found[cell]["max"]) == (min(held), max(held))
            exact = math.fsum(held) if name.startswith("float") else sum(held)
            assert found[cell]["sum"] == pytest.approx(exact, rel=1e-9, abs=1e-9 * max(map(abs, held)))
            assert found[cell]["mean"] == pytest.approx(exact / len(held), rel=1e-9, abs=1e-9 * max(map(abs, held)))
