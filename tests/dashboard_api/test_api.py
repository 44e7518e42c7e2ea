from __future__ import annotations

import csv
import io
import json

import pytest

from dashboard_api.api import parse_every
from dashboard_api.service import EXPORT_PAGE
from tests.dashboard_api.fakes import device
from wire.clock import NS_PER_S, format_ns, now_ns
from wire.points import Point

VIEWER = {"Authorization": "Bearer viewer-token"}
BIG = 2**64 - 1


def put(reader, name="d1", second=10, **fields):
    point = Point(name, "telemetry", second * NS_PER_S, fields)
    reader.points.append(point)
    return point


def get(client, path, **query):
    return client.get(path, query_string=query, headers=VIEWER)


def test_latest_gives_public_points_with_exact_types(client, reader):
    put(reader, temp=21.5, count=BIG, on=True, note="ok")

    answer = get(client, "/v1/query/latest", device="d1")

    assert answer.status_code == 200
    fields = {name: value for point in answer.json["points"] for name, value in point["fields"].items()}
    assert fields == {"temp": 21.5, "count": BIG, "on": True, "note": "ok"}
    assert answer.json["points"][0]["time"] == "1970-01-01T00:00:10.000000000Z"


def test_latest_pages_through_all_devices(client, reader):
    for at in range(5):
        put(reader, f"d{at}", temp=1.0)

    first = get(client, "/v1/query/latest", limit=2).json
    second = get(client, "/v1/query/latest", limit=2, cursor=first["next"]).json

    assert [p["device"] for p in first["points"] + second["points"]] == ["d0", "d1", "d2", "d3"]


def test_range_is_half_open_and_takes_both_kinds_of_time(client, reader):
    for second in (9, 10, 19, 20):
        put(reader, second=second, temp=float(second))

    answer = get(client, "/v1/query/range", device="d1", start="1970-01-01T00:00:10Z", end=str(20 * NS_PER_S))

    assert [p["fields"]["temp"] for p in answer.json["points"]] == [10.0, 19.0]


def test_range_tells_who_judged_each_point_when_asked(client, reader, platform):
    platform.versions = {7: {"id": 7, "type": "pump", "version": 2}}
    reader.points += [Point("d1", "telemetry", at * NS_PER_S, {"t": 1.0}, judged_by=7 * at) for at in (0, 1)]
    span = {"device": "d1", "start": "0", "end": str(9 * NS_PER_S)}

    plain = get(client, "/v1/query/range", **span).json["points"]
    judged = [get(client, "/v1/query/range", **span, judged="true").json["points"] for _ in range(2)]

    assert all("judged_by" not in point for point in plain)
    assert [point["judged_by"] for point in judged[0]] == [None, {"id": 7, "type": "pump", "version": 2}]
    assert judged[0] == judged[1]
    assert len([call for call in platform.calls if "type-versions" in call[1]]) == 1


def test_range_tells_the_number_while_the_registry_is_away(client, reader, platform):
    reader.points.append(Point("d1", "telemetry", NS_PER_S, {"t": 1.0}, judged_by=7))
    get(client, "/v1/query/range", device="d1")  # the token is known from here on
    platform.away.add("devices")

    found = get(client, "/v1/query/range", device="d1", start="0", end=str(9 * NS_PER_S), judged="true").json["points"]

    assert [point["judged_by"] for point in found] == [{"id": 7, "type": None, "version": None}]


def test_latest_tells_what_is_known_of_each_field_when_asked(client, reader, platform):
    put(reader, temp=1.0, hum=2.0, plain=3.0)
    told = {"measurement": "telemetry", "field": "temp", "unit": "°F", "label": "Air", "kind": "", "min": None}
    typed = {"measurement": "", "field": "temp", "unit": "°C", "description": ""}
    elsewhere = {"measurement": "other", "field": "hum", "unit": "%"}
    platform.described["d1"] = [told, typed, elsewhere]

    plain = get(client, "/v1/query/latest", device="d1").json["points"]
    found = get(client, "/v1/query/latest", device="d1", described="true").json["points"]
    platform.away.add("devices")
    alone = get(client, "/v1/query/latest", device="d1", described="true").json["points"]

    assert all("described" not in point for point in plain)
    fields = {name: said for point in found for name, said in point["described"].items()}
    assert fields == {"temp": {"unit": "°C", "label": "Air"}}
    assert all(point["described"] is None for point in alone)


def test_range_reads_the_last_hour_by_default(client, reader):
    put(reader, second=now_ns() // NS_PER_S - 7200, temp=1.0)
    put(reader, second=now_ns() // NS_PER_S - 60, temp=2.0)

    assert [p["fields"]["temp"] for p in get(client, "/v1/query/range").json["points"]] == [2.0]


def test_aggregate_answers_rows_of_the_contract(client, reader, platform):
    platform.devices["d1"] = device("d1", tags={"site": "a"})
    for second, temp in ((0, 1.0), (60, 3.0), (301, 7.0)):
        put(reader, second=second, temp=temp)

    query = "field=temp&fn=mean&fn=max&every=5m&start=0&end=600000000000&group_by=tag:site"
    answer = client.get(f"/v1/query/aggregate?{query}", headers=VIEWER)

    assert answer.json == {
        "rows": [
            {
                "time": "1970-01-01T00:00:00.000000000Z",
                "group": {"site": "a"},
                "values": {"temp": {"mean": 2.0, "max": 3.0}},
            },
            {
                "time": "1970-01-01T00:05:00.000000000Z",
                "group": {"site": "a"},
                "values": {"temp": {"mean": 7.0, "max": 7.0}},
            },
        ]
    }


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("latest", {"limit": 0}), ("latest", {"limit": 10_001}), ("latest", {"surprise": 1}),
        ("range", {"start": "yesterday"}), ("range", {"start": "9" * 25}), ("range", {"cursor": "') |> drop()"}),
        ("range", {"start": 20, "end": 10}), ("range", {"device": "x" * 300}),
        ("aggregate", {}), ("aggregate", {"field": "t", "fn": "median"}), ("aggregate", {"field": "t", "every": "0s"}),
        ("aggregate", {"field": "t", "every": "5 minutes"}), ("aggregate", {"field": "t", "group_by": "tag:"}),
    ],
)  # fmt: skip
def test_bad_parameters_are_a_400_that_names_them(client, path, query):
    answer = get(client, f"/v1/query/{path}", **query)

    assert answer.status_code == 400
    assert answer.mimetype == "application/problem+json"
    assert answer.json["code"] == "bad_request"


@pytest.mark.parametrize("name", ["' OR 1=1--", '") |> drop()', "a;b", "\u202e", "%", "../x"])
def test_hostile_names_find_nothing_and_break_nothing(client, reader, name):
    put(reader, temp=1.0)

    assert get(client, "/v1/query/latest", device=name).json == {"points": [], "next": None}
    assert get(client, "/v1/query/range", field=name, start=0).json["points"] == []


def test_store_that_is_away_is_a_503(client, reader):
    reader.is_away = True

    for path in ("/v1/query/latest", "/v1/query/range", "/v1/export"):
        answer = get(client, path)
        assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
        assert answer.headers["Retry-After"]


def test_export_streams_every_point_as_ndjson(client, reader):
    for second in range(EXPORT_PAGE + 3):
        put(reader, second=second, temp=float(second))

    answer = get(client, "/v1/export", device="d1", start=0, end=10**18)

    lines = [json.loads(line) for line in answer.data.splitlines()]
    assert len(lines) == EXPORT_PAGE + 3
    assert lines[-1]["fields"] == {"temp": float(EXPORT_PAGE + 2)}


def test_export_writes_one_csv_line_a_value(client, reader):
    put(reader, temp=0.1, count=BIG, on=False, note='a "quoted",\nline')

    answer = get(client, "/v1/export", format="csv", start=0, end=10**18)

    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert answer.mimetype == "text/csv"
    assert {row["field"]: (row["type"], row["value"]) for row in rows} == {
        "temp": ("float", "0.1"),
        "count": ("int", str(BIG)),
        "on": ("bool", "false"),
        "note": ("string", 'a "quoted",\nline'),
    }
    assert rows[0]["time"] == format_ns(10 * NS_PER_S)


def test_export_runs_nothing_in_a_spreadsheet(client, reader):
    put(reader, note="=HYPERLINK(0)", temp=-1.5, count=-3)

    answer = get(client, "/v1/export", format="csv", start=0, end=10**18)

    values = {row["field"]: row["value"] for row in csv.DictReader(io.StringIO(answer.text, newline=""))}
    assert values == {"note": "'=HYPERLINK(0)", "temp": "-1.5", "count": "-3"}


@pytest.mark.parametrize(
    ("text", "ns"), [("250ms", 250_000_000), ("30s", 30 * 10**9), ("5m", 300 * 10**9), ("1d", 86_400 * 10**9)]
)
def test_bucket_lengths_are_read(text, ns):
    assert parse_every(text) == ns


@pytest.fixture
def scoped(platform, reader):
    """The viewer's token is for pumps only: of d1, d2 and d3, that is d1 and d3."""
    platform.devices = {
        name: device(name, type=kind) for name, kind in (("d1", "pump"), ("d2", "tank"), ("d3", "pump"))
    }
    platform.scopes["viewer-token"] = "type=pump"
    for name in ("d1", "d2", "d3", "gone"):
        put(reader, name, temp=1.0)


SPAN = {"start": "0", "end": str(60 * NS_PER_S)}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["d1", "d3"]),
        ({"device": "d2"}, []),
        ({"device": ["d1", "d2", "gone"]}, ["d1"]),
        ({"q": "id in (d2, d3)"}, ["d3"]),
    ],
)
def test_a_token_for_some_devices_reads_these_only(client, scoped, asked, found):
    latest = get(client, "/v1/query/latest", **asked).json["points"]
    points = get(client, "/v1/query/range", **asked, **SPAN).json["points"]
    rows = get(client, "/v1/query/aggregate", **asked, **SPAN, field="temp").json["rows"]
    exported = [json.loads(line) for line in get(client, "/v1/export", **asked, **SPAN).text.splitlines()]

    for told in (latest, points, exported):
        assert [point["device"] for point in told] == found
    assert [row["group"]["device"] for row in rows] == found


@pytest.mark.parametrize("path", ["/", "/devices", "/devices/d1", "/v1/overview", "/v1/session"])
def test_pages_are_not_for_tokens_for_some_devices(client, scoped, path):
    answer = client.get(path, headers=VIEWER | {"Accept": "application/json"})

    assert answer.status_code == 403
