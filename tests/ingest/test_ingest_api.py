"""The ingestion service over HTTP, with its real spool, quarantine and field types, and a registry in memory."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient

from ingest.app import create_app
from ingest.config import IngestConfig
from ingest.framing import Batch, Delivery, Verdict, encode_batch
from ingest.quarantine import Item, Quarantine, RawMessage, Refused
from ingest.spool.reader import SpoolReader
from ingest.turns import Turns
from tests.ingest.intake_support import ROLE_TOKENS, SCOPED_TOKEN, SECRET, FakeRegistry
from tests.support.waiting import wait_until
from wire import clock
from wire.devices import ROLES, allows

SERVICE_TOKEN = "service-token"
NOW = "2026-03-04T04:53:20Z"


@pytest.fixture
def registry() -> FakeRegistry:
    made = FakeRegistry()
    made.add("d1")
    return made


@pytest.fixture
def app(tmp_path: Path, registry: FakeRegistry) -> Iterator[Flask]:
    config = IngestConfig(data=tmp_path, service_token=SERVICE_TOKEN, spool_floor_bytes=0)
    made = create_app(config, registry)
    yield made
    made.extensions["headwater.close"]()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def post(client: FlaskClient) -> Callable[..., Any]:
    def send(content: Any, path: str = "/v1/telemetry", media: str | None = "application/json", **headers: str) -> Any:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        given = {"Authorization": f"Bearer d1.{SECRET}"} | headers
        return client.post(path, data=body, content_type=media, headers=given)

    return send


def ledger(client: FlaskClient) -> dict[str, Any]:
    return client.get("/v1/ledger", headers=role("viewer")).get_json()


def role(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {ROLE_TOKENS[name]}"}


def test_reading_is_accepted_with_202(client, post) -> None:
    answer = post({"ts": NOW, "temp": 21.5})

    assert (answer.status_code, answer.get_json()) == (202, {"accepted": 1, "quarantined": []})
    assert ledger(client)["accepted"] == 1


def test_tenant_over_its_own_rate_is_told_when_to_come_again(client, post, registry) -> None:
    registry.limit_tenant("default", "1:3600")

    answers = [post({"temp": each}) for each in (1, 2)]

    assert [answer.status_code for answer in answers] == [202, 429]
    assert (answers[1].get_json()["code"], answers[1].headers["Retry-After"]) == ("rate_limited", "3600")
    assert ledger(client)["accepted"] == 1


def test_absent_content_type_is_json(post) -> None:
    assert post({"temp": 1}, media=None).status_code == 202


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "text/json", "APPLICATION/JSON"])
def test_spellings_of_json_are_taken(post, media) -> None:
    assert post({"temp": 1}, media=media).status_code == 202


@pytest.mark.parametrize("media", ["application/senml+json", "application/cbor", "application/x-www-form-urlencoded"])
def test_other_media_type_is_415_naming_the_known(post, media) -> None:
    answer = post({"temp": 1}, media=media)

    assert (answer.status_code, answer.get_json()["code"]) == (415, "media_type")
    assert "application/x-ndjson" in answer.get_json()["supported"]


def test_array_with_one_bad_of_a_thousand_keeps_999(client, post) -> None:
    content = [{"ts": 1_772_600_000 + i, "n": i} for i in range(1_000)]
    content[500] = {"ts": "yesterday", "n": 1}

    answer = post(content)

    assert answer.status_code == 202
    assert answer.get_json()["accepted"] == 999
    assert [(each["index"], each["code"]) for each in answer.get_json()["quarantined"]] == [(500, "bad_time")]
    assert ledger(client)["received"] == 1_000


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"not json", 400, "bad_syntax"),
        (b'{"a":1e400}', 422, "nonfinite"),
        (b'{"a":NaN}', 422, "nonfinite"),
        (b"[" * 10_000 + b"]" * 10_000, 400, "too_deep"),
        (b'{"a":' * 10_000, 400, "too_deep"),
        (b"[]", 422, "no_values"),
        (b"", 422, "no_values"),
        (b"\xff\xfe", 400, "bad_encoding"),
        (b'{"a":' + b"9" * 5_000 + b"}", 422, "out_of_range"),
        (b'{"ts":1e99999,"a":1}', 422, "bad_time"),
        (b'{"' + b"k" * 300 + b'":1}', 422, "bad_name"),
    ],
)
def test_bad_content_is_a_problem_with_its_code(client, post, content, status, code) -> None:
    answer = post(content)

    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert answer.content_type == "application/problem+json"
    assert answer.get_json()["quarantined"][0]["code"] == code
    assert ledger(client) | {"lag_s": 0} == {
        "received": 1, "accepted": 0, "stored": 0, "pending": 0, "duplicates": 0, "quarantined": 1, "refused": 0,
        "damaged": 0, "missing": 0, "devices_with_gaps": 0, "lag_s": 0,
    }  # fmt: skip


def test_body_over_one_mib_is_413(post) -> None:
    answer = post(b'{"a":"' + b"x" * 1024 * 1024 + b'"}')

    assert (answer.status_code, answer.get_json()["code"]) == (413, "too_large")


def test_object_over_256_kib_is_413(post) -> None:
    assert post({f"k{i}": "x" * 60_000 for i in range(5)}).status_code == 413


def test_gzip_is_taken(post) -> None:
    assert post(gzip.compress(b'{"a":1}'), **{"Content-Encoding": "gzip"}).status_code == 202


def test_gzip_bomb_is_413(post) -> None:
    bomb = gzip.compress(b'{"a":"' + b"x" * 64 * 1024 * 1024 + b'"}')

    answer = post(bomb, **{"Content-Encoding": "gzip"})

    assert (answer.status_code, answer.get_json()["code"]) == (413, "too_large")


def test_millions_of_empty_objects_are_413(post) -> None:
    bomb = gzip.compress(b"[" + b"{}," * 2_000_000 + b"{}]")

    assert post(bomb, **{"Content-Encoding": "gzip"}).status_code == 413


def test_gzip_that_is_none_is_400(post) -> None:
    answer = post(b'{"a":1}', **{"Content-Encoding": "gzip"})

    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_encoding")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer d1",
        "Bearer d1.wrong",
        "Bearer nobody." + SECRET,
        "Basic !!",
        "Basic ZDE6d3Jvbmc=",
        "Bearer ../x." + SECRET,
    ],
)
def test_wrong_or_missing_credential_is_401_and_counted(client, header) -> None:
    answer = client.post("/v1/telemetry", json={"a": 1}, headers={"Authorization": header} if header else {})

    assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"]


def test_guesses_have_to_wait_and_neighbours_do_not(client, post, registry) -> None:
    registry.add("d2")
    guess = {"Authorization": "Bearer d1.wrong", "X-Forwarded-For": "192.0.2.7"}

    answers = [client.post("/v1/telemetry", data=b'{"a":1}', headers=guess) for _ in range(12)]

    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert (answers[-1].get_json()["code"], int(answers[-1].headers["Retry-After"]) > 0) == ("device_back_off", True)
    for device in ("d1", "d2"):
        right = {"Authorization": f"Bearer {device}.{SECRET}", "X-Forwarded-For": "192.0.2.7"}
        assert post({"a": 1}, **right).status_code == 202


def test_ledger_of_a_device_is_for_those_who_have_it(registry, client, post) -> None:
    registry.add("theirs", tenant="other")

    def status(device: str) -> int:
        return client.get(f"/v1/devices/{device}/ledger", headers=role("viewer")).status_code

    assert [status(device) for device in ("d1", "theirs", "nobody", "no id")] == [200, 404, 404, 404]
    registry.is_away = True
    assert status("not-asked-before") == 200
    registry.is_away = False
    post({"ts": NOW, "temp": "x" * 100_000})
    registry.devices.clear()
    assert status("d1") == 200


def test_token_for_some_devices_sees_and_changes_what_waits_of_these(registry, client, post) -> None:
    registry.scope = {"d1", "d3", "d4"}
    registry.add("d2")
    headers = {"Authorization": f"Bearer {SCOPED_TOKEN}"}
    for device in ("d1", "d2"):
        for number in (1, 2):
            post(b"[%d]" % number, Authorization=f"Bearer {device}.{SECRET}")
    found = {each["id"]: each["device"] for each in client.get("/v1/quarantine", headers=role("viewer")).json["items"]}
    mine = [id_ for id_, device in found.items() if device == "d1"]
    theirs = next(id_ for id_, device in found.items() if device == "d2")

    def deed(name: str, **body: Any) -> Any:
        return client.post(f"/v1/quarantine:{name}", json=body, headers=headers).get_json()

    listed = client.get("/v1/quarantine", headers=headers).get_json()["items"]
    exported = client.get("/v1/quarantine:export", headers=headers).get_data(as_text=True).splitlines()
    shown = [client.get(f"/v1/quarantine/{id_}", headers=headers).status_code for id_ in (mine[0], theirs, 999)]
    replayed = deed("replay", ids=[int(mine[0]), int(theirs)])
    discarded = [deed("discard", ids=[int(theirs), int(mine[0])]), deed("discard", filter={"device": "d2"}),
                 deed("discard", filter={})]  # fmt: skip

    assert [each["id"] for each in listed] == [json.loads(line)["id"] for line in exported] == mine
    assert client.get("/v1/quarantine?device=d2", headers=headers).get_json()["items"] == []
    assert shown == [200, 404, 404]
    assert {each["id"]: each["code"] for each in replayed["failed"]}.keys() == {mine[0], theirs}
    assert next(each["code"] for each in replayed["failed"] if each["id"] == theirs) == "not_found"
    assert [each["discarded"] for each in discarded] == [1, 0, 1]
    assert [each["device"] for each in client.get("/v1/quarantine", headers=role("viewer")).json["items"]] == ["d2"] * 2


def test_message_of_a_gateway_is_not_shown_to_who_sees_one_of_its_children(registry, client, tmp_path) -> None:
    message = RawMessage("g1", "json", "mqtt", b"what is of all", 1, "devices/g1/telemetry")
    Quarantine(tmp_path / "quarantine.db", limit_bytes=2**20).add(
        [Refused(message, [Item(0, "out_of_range", "too warm", device="c1")])]
    )

    def shown(*scope: str) -> list[Any]:
        registry.scope = set(scope)
        [entry] = client.get("/v1/quarantine", headers={"Authorization": f"Bearer {SCOPED_TOKEN}"}).get_json()["items"]
        return [entry[name] for name in ("device", "detail", "sender", "source", "raw_base64", "raw_truncated")]

    assert shown("c1") == ["c1", "too warm", "", "", "", True]
    assert shown("c1", "g1")[2:] == ["g1", "devices/g1/telemetry", "d2hhdCBpcyBvZiBhbGw=", False]


def test_platforms_own_tenant_has_a_sheet_of_its_own(client) -> None:
    own = client.get("/v1/ledger?own=true", headers=role("viewer")).get_json()

    assert own["tenant"] == "default"
    assert "tenant" not in ledger(client)


def test_refused_requests_reach_the_ledger(app, client) -> None:
    client.post("/v1/telemetry", json={"a": 1})
    app.extensions["headwater.workers"].stop()

    assert ledger(client)["refused"] == 1


def test_basic_credential_is_taken(client) -> None:
    text = b64encode(f"d1:{SECRET}".encode()).decode()

    assert client.post("/v1/telemetry", json={"a": 1}, headers={"Authorization": f"Basic {text}"}).status_code == 202


def test_disabled_device_is_403(post, registry) -> None:
    registry.add("d1", state="disabled")

    answer = post({"a": 1})

    assert (answer.status_code, answer.get_json()["code"]) == (403, "device_disabled")


def test_another_devices_name_is_403_and_audited(app, post, registry) -> None:
    answer = post({"a": 1}, "/v1/telemetry?device=d2")
    app.extensions["headwater.workers"].stop()

    assert (answer.status_code, answer.get_json()["code"]) == (403, "identity_mismatch")
    assert registry.audit[0]["action"] == "telemetry.identity_mismatch"
    assert registry.audit[0]["object"] == "device:d2"


def test_registry_away_and_device_unknown_is_503(client, registry) -> None:
    registry.is_away = True

    answer = client.post("/v1/telemetry", json={"a": 1}, headers={"Authorization": f"Bearer d1.{SECRET}"})

    assert (answer.status_code, answer.get_json()["code"]) == (503, "peer_unavailable")
    assert answer.headers["Retry-After"]


def test_registry_away_and_device_cached_goes_on(post, registry) -> None:
    post({"a": 1})
    registry.is_away = True

    assert post({"a": 2}).status_code == 202


def test_protocol_is_named_by_path(post) -> None:
    assert post(b'{"a":1}\n{"a":2}', "/v1/telemetry/ndjson").get_json()["accepted"] == 2
    assert post({"a": 1}, "/v1/telemetry/thingsboard").get_json()["code"] == "unsupported"  # another service's
    assert post({"a": 1}, "/v1/telemetry/nonsense").get_json()["code"] == "unsupported"


def test_quarantine_lists_pages_and_shows_raw(client, post) -> None:
    for number in range(3):
        post(b'{"a":%d' % number)

    first = client.get("/v1/quarantine?device=d1&code=bad_syntax&limit=2", headers=role("viewer")).get_json()
    second = client.get(f"/v1/quarantine?limit=2&cursor={first['next']}", headers=role("viewer")).get_json()

    raws = [b64decode(item["raw_base64"]) for item in first["items"] + second["items"]]
    assert raws == [b'{"a":2', b'{"a":1', b'{"a":0']
    assert second["next"] is None
    shown = client.get(f"/v1/quarantine/{first['items'][0]['id']}", headers=role("viewer")).get_json()
    assert shown == first["items"][0]


@pytest.mark.parametrize("path", ["/v1/quarantine?cursor=x", "/v1/quarantine?limit=0", "/v1/quarantine?nonsense=1"])
def test_bad_query_is_400(client, path) -> None:
    assert client.get(path, headers=role("viewer")).status_code == 400


@pytest.mark.parametrize("id_", ["x", "9" * 30, "-1", "4711"])
def test_unknown_entry_is_404(client, id_) -> None:
    assert client.get(f"/v1/quarantine/{id_}", headers=role("viewer")).status_code == 404


def test_replay_over_http_after_the_type_was_mended(client, post, registry) -> None:
    registry.put_type(name="g", fields={"t": {"max": 10}})
    registry.add("d1", type="g")
    post({"ts": NOW, "t": 20})
    found = client.get("/v1/quarantine", headers=role("viewer")).get_json()["items"]
    registry.put_type(name="g", version=2, fields={"t": {"max": 30}})

    def replay() -> Any:
        body = {"ids": [found[0]["id"]]}
        return client.post("/v1/quarantine:replay", json=body, headers=role("operator")).get_json()

    wait_until(lambda: replay() == {"replayed": 1, "failed": [], "duplicates": 0, "more": False})

    assert found[0]["code"] == "out_of_range"
    assert replay() == {"replayed": 0, "failed": [], "duplicates": 1, "more": False}
    assert ledger(client)["accepted"] == 1
    assert ledger(client)["quarantined"] == 0


def test_discard_moves_entries_to_refused_and_is_audited(app, client, post, registry) -> None:
    post(b"{")
    post(b"[")

    answer = client.post("/v1/quarantine:discard", json={"filter": {"device": "d1"}}, headers=role("operator"))
    app.extensions["headwater.workers"].stop()

    assert answer.get_json() == {"discarded": 2, "more": False}
    assert (ledger(client)["quarantined"], ledger(client)["refused"]) == (0, 2)
    assert registry.audit[0]["action"] == "quarantine.discard"


@pytest.mark.parametrize(
    "body", [{}, {"ids": []}, {"ids": ["x"]}, {"ids": [1], "filter": {}}, {"filter": {"nonsense": 1}}]
)
def test_bad_replay_body_is_422(client, body) -> None:
    assert client.post("/v1/quarantine:replay", json=body, headers=role("operator")).status_code == 422


def test_batch_of_a_bridge_is_answered_per_message(client) -> None:
    deliveries = [
        Delivery("d1", "devices/d1/telemetry", b'{"a":1}', 1_772_600_000_000_000_000, 1),
        Delivery("d1", "devices/d1/telemetry", b'{"a":', 1_772_600_000_000_000_001, 2),
        Delivery("d9", "devices/d9/telemetry", b'{"a":1}', 1_772_600_000_000_000_002, 3),
    ]

    answer = client.post(
        "/internal/batch",
        data=encode_batch(Batch("b", deliveries)),
        headers={"Authorization": f"Bearer {SERVICE_TOKEN}"},
    )

    verdict = msgspec.json.decode(answer.data, type=Verdict)
    assert verdict.accepted == 1
    assert [(each.index, each.end, each.code) for each in verdict.endings] == [
        (1, "quarantined", "bad_syntax"), (2, "quarantined", "unknown_device"),
    ]  # fmt: skip


def test_batch_may_be_larger_than_a_devices_body(client) -> None:
    payload = b'{"a":"' + b"x" * 60_000 + b'"}'
    batch = Batch(
        "b", [Delivery("d1", "devices/d1/telemetry", payload, 1_772_600_000_000_000_000 + i, i) for i in range(40)]
    )

    answer = client.post(
        "/internal/batch", data=encode_batch(batch), headers={"Authorization": f"Bearer {SERVICE_TOKEN}"}
    )

    assert msgspec.json.decode(answer.data, type=Verdict).accepted == 40


def test_garbage_as_batch_is_400(client) -> None:
    answer = client.post("/internal/batch", data=b"\xc1", headers={"Authorization": f"Bearer {SERVICE_TOKEN}"})

    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_syntax")


def test_ready_once_the_registry_was_reached(client, post) -> None:
    post({"a": 1})

    assert client.get("/readyz?verbose").get_json()["checks"] == {"spool": "ok", "registry": "ok", "workers": "ok"}


def test_metrics_count_readings_by_end(client, post) -> None:
    post({"a": 1})

    assert b'headwater_ingest_readings_total{end="accepted",protocol="json"}' in client.get("/metrics").data


def test_every_route_refuses_every_lesser_role(app, client) -> None:
    for operation in app.extensions["headwater.api"].operations:
        path = operation.rule.replace("<id>", "1").replace("<protocol>", "json").replace("<token>", "x")
        for name in (None, *ROLES):
            answer = client.open(path, method=operation.method, headers=role(name) if name else {})
            if operation.access in ("own", "service") or name is None:
                assert answer.status_code == 401, (operation.rule, name)
            else:
                assert (answer.status_code == 403) is not allows(name, operation.access), (operation.rule, name)


def test_readings_without_a_time_never_share_one(post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests of one device in the same ns, or with arrays that reach into each other: nothing is overwritten."""
    monkeypatch.setattr(clock, "now_ns", lambda: 1_800_000_000_000_000_000)
    for _ in range(3):
        assert post([{"a": number} for number in range(20)]).status_code == 202

    spooled = SpoolReader(tmp_path / "spool", {}).take(100).readings
    assert len({reading.time_ns for reading in spooled}) == len(spooled) == 60


def test_quarantine_is_filtered_by_type_version_and_time(client, post, registry) -> None:
    registry.put_type(name="t", version=3, fields={"a": {"max": 1}})
    registry.add("d2", type="t")
    post({"a": 2}, Authorization=f"Bearer d2.{SECRET}")
    post(b"{")

    def found(query: str) -> list[str]:
        listed = client.get(f"/v1/quarantine?{query}", headers=role("viewer")).get_json()
        return [entry["code"] for entry in listed["items"]]

    assert found("type=t&type_version=3") == ["out_of_range"]
    assert found("type=t&type_version=2") == []
    assert found("start=2020-01-01T00:00:00Z") == ["bad_syntax", "out_of_range"]
    assert found("end=2020-01-01T00:00:00Z") == []


def test_quarantine_is_exported_with_whole_messages(client, post) -> None:
    large = json.dumps([{"a": "=1", "pad": "x" * 20_000}, 5]).encode()
    post(large)
    post(b"{")

    lines = client.get("/v1/quarantine:export", headers=role("viewer")).data.splitlines()
    table = client.get("/v1/quarantine:export?format=csv&code=bad_syntax", headers=role("viewer"))

    entries = [json.loads(line) for line in lines]
    assert [(entry["code"], entry["raw_truncated"]) for entry in entries] == [
        ("bad_syntax", False),
        ("bad_structure", False),
    ]
    assert b64decode(entries[1]["raw_base64"]) == large
    head, row = table.text.splitlines()
    assert head.startswith("id,device,protocol,")
    assert row.startswith("2,d1,json,http,")
    assert client.get("/v1/quarantine:export?code=none", headers=role("viewer")).data == b""


@pytest.mark.parametrize("is_gzip", [False, True])
def test_large_bodies_wait_for_each_other_and_small_ones_do_not(app, client, post, monkeypatch, is_gzip) -> None:
    seen: list[str] = []

    @contextmanager
    def take(turns: Turns) -> Iterator[None]:
        seen.append("large")
        yield

    monkeypatch.setattr(Turns, "take", take)
    line = json.dumps({"ts": NOW, "note": "x" * 900}).encode() + b"\n"
    headers = {"Content-Encoding": "gzip"} if is_gzip else {}

    for count in (10, 500):
        body = line * count
        answer = post(gzip.compress(body) if is_gzip else body, media="application/x-ndjson", **headers)
        assert answer.get_json()["accepted"] == count

    assert seen == ["large"]


def test_gateway_posts_for_its_child_and_for_no_other(post, registry) -> None:
    registry.add("g1", gateway=True)
    registry.add("c2", parent="g2")
    as_gateway = {"Authorization": f"Bearer g1.{SECRET}"}

    accepted = post({"t": 1}, "/v1/telemetry?device=c1", **as_gateway)
    foreign = post({"t": 1}, "/v1/telemetry?device=c2", **as_gateway)
    registry.rules = "child_refused"
    refused = post({"t": 1}, "/v1/telemetry?device=c3", **as_gateway)

    assert accepted.status_code == 202
    assert (foreign.status_code, foreign.get_json()["code"]) == (403, "identity_mismatch")
    assert (refused.status_code, refused.get_json()["code"]) == (403, "child_refused")
