"""InfluxDB's paths as its clients see them: how they say who they are, what they are told, and in which words."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from ingest.spool.reader import SpoolReader
from tests.ingest.intake_support import SECRET, FakeRegistry
from wire import clock

V2, V1 = "/api/v2/write?org=o&bucket=b", "/write?db=b"
TOKEN = {"Authorization": f"Token d1.{SECRET}"}
NOW_S = 1_772_600_000

PROTOCOL = "line"
Post = Callable[..., TestResponse]


@pytest.fixture
def post(app: Flask) -> Post:
    def send(path: str = V2, content: str | bytes = "m a=1", headers: dict[str, str] = TOKEN) -> TestResponse:
        return app.test_client().post(path, data=content, headers=headers)

    return send


def spooled(folder: Path) -> list[Any]:
    return SpoolReader(folder / "spool", {}).take(100).readings


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


@pytest.mark.parametrize("path", [V2, V1])
@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", TOKEN),
        ("", {"Authorization": f"token  d1.{SECRET}"}),
        ("", {"Authorization": f"Token d1:{SECRET}"}),
        ("", {"Authorization": f"Bearer d1.{SECRET}"}),
        ("", basic("d1", SECRET)),
        ("", basic("telegraf", f"d1.{SECRET}")),
        (f"&u=d1&p={SECRET}", {}),
        (f"&u=any&p=d1.{SECRET}", {}),
        (f"&p=d1.{SECRET}", {}),
    ],
)
def test_ways_to_say_who_one_is(post: Post, path: str, query: str, headers: dict[str, str]) -> None:
    answer = post(path + query, headers=headers)

    assert (answer.status_code, answer.data) == (204, b"")
    assert answer.headers["X-Influxdb-Version"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Token d1.wrong"}, {"Authorization": "Token x"}, basic("d1", "wrong"), basic("", SECRET),
     {"Authorization": f"Token d1{SECRET}"}, {"Authorization": "Token "}],
)  # fmt: skip
def test_stranger_is_told_so_in_the_words_of_each_version(post: Post, headers: dict[str, str]) -> None:
    new, old = post(V2, headers=headers), post(V1, headers=headers)

    assert (new.status_code, old.status_code) == (401, 401)
    assert new.get_json().keys() == {"code", "message"}
    assert new.get_json()["code"] == new.headers["X-Platform-Error-Code"] == "unauthorized"
    assert old.get_json() == {"error": old.headers["X-Influxdb-Error"]}
    assert old.headers["WWW-Authenticate"] == 'Basic realm="InfluxDB"'


@pytest.mark.parametrize(
    ("path", "unit", "time"),
    [(V2, "ns", 10**9), (V2, "us", 10**6), (V2, "ms", 1_000), (V2, "s", 1), (V1, "n", 10**9), (V1, "u", 10**6),
     (V1, "ms", 1_000), (V1, "s", 1), (V1, "us", 10**6), (V1, "ns", 10**9)],
)  # fmt: skip
def test_precision_is_the_unit_of_times(post: Post, tmp_path: Path, path: str, unit: str, time: int) -> None:
    assert post(f"{path}&precision={unit}", f"m a=1 {NOW_S * time}").status_code == 204

    (reading,) = spooled(tmp_path)
    assert reading.time_ns == NOW_S * clock.NS_PER_S


@pytest.mark.parametrize("path", [f"{V2}&precision=m", f"{V2}&precision=x", f"{V1}&precision=d"])
def test_unknown_precision_is_400_and_nothing_is_kept(post: Post, tmp_path: Path, path: str) -> None:
    assert post(path, "m a=1 1").status_code == 400
    assert spooled(tmp_path) == []


def test_measurement_and_tags_go_with_the_reading(post: Post, tmp_path: Path) -> None:
    post(content='we\\ ather,host=a,device=b t=1,n=2i,s="x",on=t 7')

    (reading,) = spooled(tmp_path)
    assert (reading.device, reading.measurement, reading.tags) == ("d1", "we ather", {"host": "a", "device": "b"})
    assert (reading.fields, reading.time_ns) == ({"t": 1.0, "n": 2, "s": "x", "on": True}, 7)


def test_content_type_says_nothing(post: Post, tmp_path: Path) -> None:
    curl = TOKEN | {"Content-Type": "application/x-www-form-urlencoded"}

    assert post(content="m a=1,b=2 1", headers=curl).status_code == 204
    assert [reading.fields for reading in spooled(tmp_path)] == [{"a": 1.0, "b": 2.0}]


def test_good_lines_are_kept_and_the_first_bad_one_is_named(post: Post, tmp_path: Path) -> None:
    content = 'm a=1 1\nm s="two\nlines" 2\nm bad\nm a=3 3\nm a=4,'

    answer = post(content=content)

    assert answer.status_code == 400
    assert answer.get_json() | {"message": ""} == {"code": "invalid", "message": "", "line": 4}
    assert answer.get_json()["message"].startswith("partial write: line 4: field 1 is not")
    assert "3 accepted, 2 kept in the quarantine" in answer.get_json()["message"]
    assert [reading.time_ns for reading in spooled(tmp_path)] == [1, 2, 3]


def test_version_1_names_the_line_in_a_text_and_a_header(post: Post) -> None:
    answer = post(V1, "m \u20ac=1,\u20ac")

    assert answer.status_code == 400
    assert answer.get_json()["error"].startswith("partial write: line 1: field 2")
    assert answer.headers["X-Influxdb-Error"].isascii()


@pytest.mark.parametrize("content", ["", "# only words\n"])
def test_nothing_to_write_is_400(post: Post, content: str) -> None:
    assert (post(content=content).status_code, "line" in post(content=content).get_json()) == (400, False)


def test_field_that_changes_its_type_costs_itself_only(post: Post, tmp_path: Path) -> None:
    post(content="m a=1i 1")

    answer = post(content="m a=1.5,b=2 2")

    assert (answer.status_code, answer.get_json()["line"]) == (400, 1)
    assert [reading.fields for reading in spooled(tmp_path)] == [{"a": 1}, {"b": 2.0}]


def test_limit_of_the_rate_is_repeatable_for_each_kind_of_client(post: Post, registry: FakeRegistry) -> None:
    registry.limit_tenant("default", "1:3600")
    assert post().status_code == 204

    new, old = post(V2), post(V1)

    assert (new.status_code, new.get_json()["code"], new.headers["Retry-After"]) == (429, "too many requests", "3600")
    assert (old.status_code, old.headers["Retry-After"]) == (503, "3600")  # Telegraf drops what is told 429 there
    assert "rate limit" in old.get_json()["error"]


def test_registry_that_is_away_is_503_with_retry_after(post: Post, registry: FakeRegistry) -> None:
    registry.is_away = True

    for path, member in ((V2, "message"), (V1, "error")):
        answer = post(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "registry" in answer.get_json()[member]


def test_disabled_device_is_403(post: Post, registry: FakeRegistry) -> None:
    registry.add("d2", state="disabled")

    answer = post(headers={"Authorization": f"Token d2.{SECRET}"})

    assert (answer.status_code, answer.get_json()["code"]) == (403, "forbidden")


def test_data_of_a_device_that_waits_is_kept_and_acknowledged(post: Post, registry: FakeRegistry) -> None:
    registry.add("d3", state="held")

    assert post(headers={"Authorization": f"Token d3.{SECRET}"}).status_code == 204


GZIP = TOKEN | {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (gzip.compress(b"m a=1\n" * 5_000), GZIP, 204, ""),
        (b"m a=1", GZIP, 400, "invalid"),
        (gzip.compress(b"m a=1")[:-4], GZIP, 400, "invalid"),
        (gzip.compress(b"#" * (9 * 1024 * 1024)), GZIP, 413, "request too large"),
        (b"m a=1\n" * 20_001, TOKEN, 413, "request too large"),
        (b"m a=1", TOKEN | {"Content-Encoding": "br"}, 415, "invalid"),
        (b"x" * (1024 * 1024 + 1), TOKEN, 413, "request too large"),
    ],
    ids=range(7),
)
def test_bodies_that_are_packed_or_large(
    post: Post, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = post(content=content, headers=headers)

    assert answer.status_code == status
    assert not code or answer.get_json()["code"] == code


@pytest.mark.parametrize(
    "query", ['CREATE DATABASE "x"', "create database x WITH DURATION 1d", "CREATE RETENTION POLICY p ON x"]
)
def test_database_is_created_for_whoever_asks(app: Flask, query: str) -> None:
    answer = app.test_client().post("/query", data={"q": query}, headers=basic("d1", SECRET))

    assert (answer.status_code, answer.get_json()) == (200, {"results": [{"statement_id": 0}]})


def test_other_queries_and_strangers_are_refused(app: Flask) -> None:
    client = app.test_client()

    assert client.post("/query", data={"q": "DROP DATABASE x"}, headers=TOKEN).status_code == 400
    assert client.post("/query", data={"q": "CREATE DATABASE x"}).status_code == 401


def test_probes_need_no_credential(app: Flask) -> None:
    client = app.test_client()

    for answer in (client.get("/ping"), client.head("/ping")):
        assert (answer.status_code, answer.data, bool(answer.headers["X-Influxdb-Version"])) == (204, b"", True)
    assert client.get("/ping?verbose=true").get_json() == {"version": client.get("/ping").headers["X-Influxdb-Version"]}
    health = client.get("/health").get_json()
    assert (health["name"], health["status"], health["checks"]) == ("influxdb", "pass", [])
    assert client.get("/ready").get_json()["status"] == "ready"
