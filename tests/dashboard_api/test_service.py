from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dashboard_api.offload import Inline
from dashboard_api.service import EXPORT_PAGE, EXPORTS_AT_ONCE, Entry, Queries, Selection, Span, fitting_every_ns
from tests.dashboard_api.fakes import MemoryReader
from wire.clock import NS_PER_S
from wire.errors import BadRequest
from wire.points import Point

HOUR = Span(0, 3600 * NS_PER_S)


class Listing:
    def entries(self, tenant):
        found = [Entry("a", "pump", {"site": "north"}), Entry("b", "pump", {"site": "south"}), Entry("c")]
        return {entry.id: entry for entry in found}

    def chosen(self, tenant, query, scope=""):
        return [entry.id for entry in self.entries(tenant).values() if entry.type == query.partition("=")[2]]


def queries_of(*points: Point) -> Queries:
    return Queries(MemoryReader(list(points)), Listing(), Inline())


def point(device: str, second: int, value: float) -> Point:
    return Point(device, "telemetry", second * NS_PER_S, {"temp": value})


def aggregate(queries: Queries, group_by: str):
    return queries.aggregate(Selection(fields=["temp"]), HOUR, fns=["mean"], every_ns=60 * NS_PER_S, group_by=group_by)


def test_groups_by_tag_and_leaves_out_untagged_devices():
    queries = queries_of(point("a", 1, 10.0), point("b", 2, 20.0), point("c", 3, 99.0))

    rows = aggregate(queries, "tag:site")

    assert [(row["group"], row["values"]["temp"]["mean"]) for row in rows] == [
        ({"site": "north"}, 10.0),
        ({"site": "south"}, 20.0),
    ]


def test_groups_by_type_across_devices():
    rows = aggregate(queries_of(point("a", 1, 10.0), point("b", 2, 20.0)), "type")

    assert [(row["group"], row["values"]["temp"]["mean"]) for row in rows] == [({"type": "pump"}, 15.0)]


def test_query_narrows_and_what_finds_nothing_gives_nothing():
    queries = queries_of(point("a", 1, 10.0), point("b", 2, 20.0), point("c", 3, 30.0))

    def latest(**wanted) -> list[str]:
        return [found.device for found in queries.latest(Selection(**wanted)).points]

    assert latest(query="type=pump") == ["a", "b"]
    assert latest(query="type=pump", devices=["b", "c"]) == ["b"]
    assert latest(query=" ") == ["a", "b", "c"]
    nothing = Selection(query="type=tank", fields=["temp"])
    assert queries.latest(nothing).points == queries.range(nothing, HOUR).points == []
    assert queries.aggregate(nothing, HOUR, fns=["mean"], every_ns=None) == []
    assert list(queries.export(nothing, HOUR, lambda points: b"%d" % len(points))) == [b"0"]


def test_every_device_is_a_group_by_default():
    rows = aggregate(queries_of(point("a", 1, 10.0), point("b", 2, 20.0)), "")

    assert [row["group"] for row in rows] == [{"device": "a"}, {"device": "b"}]


@pytest.mark.parametrize("asked", ["site", "tag", "tag:", "' OR 1=1--", "fleet:x"])
def test_unknown_grouping_is_refused(asked: str):
    with pytest.raises(BadRequest, match="group_by"):
        aggregate(queries_of(), asked)


def test_export_goes_through_all_pages():
    points = [Point("a", "telemetry", at, {"temp": 1.0}) for at in range(EXPORT_PAGE * 2 + 7)]

    found = list(queries_of(*points).export(Selection(), HOUR, lambda page: bytes(str(len(page)), "ascii")))

    assert found == [b"2000", b"2000", b"7"]


def test_exports_leave_threads_to_people_who_wait():
    offload = Crowded()
    queries = Queries(MemoryReader([point("a", 1, 1.0)]), Listing(), offload)

    with ThreadPoolExecutor(8) as pool:
        for export in [
            pool.submit(lambda: list(queries.export(Selection(), HOUR, lambda points: b""))) for _ in range(8)
        ]:
            export.result()

    assert offload.most == EXPORTS_AT_ONCE


class Crowded(Inline):
    """Lets as many as may come in meet inside, and counts them."""

    def __init__(self) -> None:
        self.most = self.inside = 0
        self.lock = threading.Condition()

    def run(self, work):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.lock.notify_all()
            self.lock.wait_for(lambda: self.most > EXPORTS_AT_ONCE, timeout=0.2)
            self.inside -= 1
        return work()


def test_span_that_ends_before_it_starts_is_refused():
    with pytest.raises(BadRequest, match="later than end"):
        Span(2, 1)


@pytest.mark.parametrize(("length_s", "every_s"), [(60, 1), (3600, 15), (86_400, 300), (30 * 86_400, 21_600)])
def test_bucket_fits_the_span(length_s: int, every_s: int):
    assert fitting_every_ns(Span(0, length_s * NS_PER_S)) == every_s * NS_PER_S
