from __future__ import annotations

import csv
import io
from itertools import count, takewhile
from typing import Any

import pytest
from sqlalchemy import event, select

from chassis.tokens import hash_token
from devices.database.engine import Database
from devices.database.schema import migrate
from devices.database.tables import AUDIT, CREDENTIALS
from devices.gateways.store import GatewayStore
from devices.jobs.kinds import Kind
from devices.jobs.service import Jobs, Runner
from devices.jobs.store import JobStore
from devices.onboarding import importing, lines
from devices.rows import Who
from devices.store import DeviceStore
from tests.support.waiting import wait_until


def load(service, text: str | bytes, query: str = "", content_type: str = "text/csv"):
    return service.admin("POST", f"/v1/devices:import{query}", data=text, content_type=content_type)


def test_good_lines_register_beside_bad_ones(service) -> None:
    service.register("taken")
    text = "id,type,gateway,tag.site\nd1,pump,true,a\nbad id,,,\ntaken,,,\nd1,,,\nd2,,maybe,\nd3,,,x,y\n\nd4\n"

    report = load(service, text).json

    assert (report["total"], report["created"]) == (7, 2)
    assert [(row["line"], row["id"], row["code"]) for row in report["failed"]] == [
        (3, "bad id", "bad_id"),
        (4, "taken", "device_exists"),
        (5, "d1", "duplicate_id"),
        (6, "d2", "bad_value"),
        (7, "d3", "bad_line"),
    ]
    assert [row["device"] for row in report["credentials"]] == ["d1", "d4"]
    shown = service.admin("GET", "/v1/devices/d1").json
    assert (shown["type"], shown["gateway"], shown["tags"]) == ("pump", True, {"site": "a"})


def test_dry_run_reports_the_same_and_changes_nothing(service) -> None:
    text = "id\nd1\nd1\nd2\n"

    tried = load(service, text, "?dry_run=true").json
    assert service.admin("GET", "/v1/devices").json["items"] == []
    done = load(service, text).json

    assert (tried["dry_run"], tried["credentials"]) == (True, [])
    assert (tried["created"], tried["failed"]) == (done["created"], done["failed"])


def test_quoted_cells_keep_their_text(service) -> None:
    load(service, '\ufeffid,"tag.note"\r\nd1,"a,""b"""\r\nd2,caf\u00e9\u2028x\r\n'.encode())

    assert service.admin("GET", "/v1/devices/d1").json["tags"] == {"note": 'a,"b"'}
    assert service.admin("GET", "/v1/devices/d2").json["tags"] == {"note": "caf\u00e9\u2028x"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "bad_header"),
        (b"name\nd1\n", "bad_header"),
        (b"id,id\nd1,d2\n", "bad_header"),
        (b"id,colour\nd1,red\n", "bad_header"),
        (b"id\n\xff\n", "bad_encoding"),
        (b'id\n"open\n', "bad_syntax"),
        (b"id\n" + b"x" * 200_000, "bad_syntax"),
    ],
)
def test_files_that_are_not_ours_are_refused_whole(service, content, code) -> None:
    answer = load(service, content)

    assert (answer.status_code, answer.json["code"]) == (400, code)


@pytest.mark.parametrize("cell", ["d1\n", "+", "#", "a/b", "$SYS", "_x", "a" * 65, "\u0131d", "d\x001"])
def test_odd_ids_fail_on_their_line(service, cell) -> None:
    report = load(service, f'id,type\n"{cell}",\n').json

    assert [row["code"] for row in report["failed"]] == ["bad_id"]


@pytest.mark.parametrize("line", ["d1,bad type,", "d1,,\x01", "d1,," + "v" * 257])
def test_odd_values_fail_on_their_line(service, line) -> None:
    report = load(service, f"id,type,tag.a\n{line}\n").json

    assert [row["code"] for row in report["failed"]] == ["bad_value"]


def test_too_large_files_and_other_kinds_are_refused(service) -> None:
    assert load(service, b"id\n" + b"d\n" * 100_001).status_code == 413
    assert load(service, b"x" * (32 * 1024 * 1024 + 1)).status_code == 413
    assert load(service, b"id\nd1\n", content_type="application/json").status_code == 415


def test_many_devices_are_registered_by_one_call(service) -> None:
    text = "id,type,tag.site\n" + "".join(f"bulk-{n},pump,s{n % 7}\n" for n in range(1_100))

    report = load(service, text).json

    assert report["created"] == len(report["credentials"]) == 1_100
    assert service.admin("GET", "/v1/audit?object=bulk-1099").json["items"][0]["action"] == "device.import"
    assert len(service.admin("GET", "/v1/devices?tag=site:s3&limit=1000").json["items"]) == 157


def start(service, text: str | bytes, query: str = "", content_type: str = "text/csv"):
    return load(service, text, f"?job=true{query}", content_type)


def finished(service, job_id: str):
    wait_until(lambda: service.admin("GET", f"/v1/jobs/{job_id}").json["state"] not in ("queued", "running"), 20)
    return service.admin("GET", f"/v1/jobs/{job_id}").json


def result_of(service, job) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(service.admin("GET", job["download"]).text)))


def test_ndjson_lines_are_devices_as_in_the_api(service) -> None:
    lines = [b'{"id":"d1","type":"pump","tags":{"a":"=1+1"},"gateway":true}', b"", b"[]", b'{"id":"d2","x":1}', b"{"]

    report = load(service, b"\n".join(lines), content_type="text/plain").json

    assert (report["total"], report["created"]) == (4, 1)
    assert [(row["line"], row["code"]) for row in report["failed"]] == [
        (3, "bad_value"),
        (4, "bad_value"),
        (5, "bad_line"),
    ]
    assert service.admin("GET", "/v1/devices/d1").json["tags"] == {"a": "=1+1"}


def test_job_registers_all_parts_and_its_result_tells_each_line(service) -> None:
    service.register("taken")
    text = "id,tag.site\n" + "".join(f"d{n},a\n" for n in range(1200)) + "taken,\n=bad,\nd1,\n"

    queued = start(service, text)
    job = finished(service, queued.json["id"])
    rows = result_of(service, job)

    assert (queued.status_code, queued.json["total"]) == (202, 1203)
    assert (job["state"], job["done"], job["failed"], job["result"]) == (
        "done",
        1200,
        3,
        {"created": 1200, "existed": 0},
    )
    assert [int(row["line"]) for row in rows] == list(range(2, 1205))
    assert [(row["id"], row["code"]) for row in rows[-3:]] == [
        ("taken", "device_exists"), ("'=bad", "bad_id"), ("d1", "duplicate_id"),
    ]  # fmt: skip
    presented = {"ids": ["d7"]}
    [known] = service.internal("POST", "/internal/devices:lookup", presented).json["devices"]
    assert known["credentials"][0]["sha256"] == hash_token(rows[7]["secret"])


def test_secrets_of_a_job_are_for_operators_audited_and_deleted(service) -> None:
    job = finished(service, start(service, "id\nd1\n").json["id"])
    secret = result_of(service, job)[0]["secret"]

    refused = service.caller("viewer")("GET", job["download"])
    service.admin("DELETE", job["download"])
    actions = [entry["action"] for entry in service.admin("GET", f"/v1/audit?object={job['id']}").json["items"]]

    assert refused.status_code == 403
    assert service.admin("GET", job["download"]).status_code == 404
    assert actions == ["job.result.delete", "job.result.read", "job.done", "job.start"]
    assert secret not in service.admin("GET", "/v1/audit").text + service.admin("GET", "/v1/jobs").text


def test_dry_run_as_a_job_tells_the_same_and_registers_nothing(service) -> None:
    job = finished(service, start(service, "id\nd1\nbad id\n", "&dry_run=true").json["id"])

    assert [(row["outcome"], row["secret"]) for row in result_of(service, job)] == [
        ("would_be_created", ""),
        ("failed", ""),
    ]
    assert service.admin("GET", "/v1/devices").json["items"] == []


def test_resumed_import_is_the_one_under_way_or_passes_over_what_exists(service) -> None:
    first = finished(service, start(service, "id\nd1\nd2\n").json["id"])

    same = start(service, "id\nd1\nd2\n", "&resume=true").json
    other = finished(service, start(service, "id\nd1\nd2\nd3\n", "&resume=true").json["id"])

    assert same["id"] == first["id"]
    assert (other["done"], other["failed"], other["result"]) == (3, 0, {"created": 1, "existed": 2})
    assert [row["outcome"] for row in result_of(service, other)] == ["existed", "existed", "created"]


def test_refused_file_starts_no_job(service) -> None:
    assert start(service, b'id\nd1\n"open\n').status_code == 400
    assert service.admin("GET", "/v1/jobs").json["items"] == []


def test_attributes_come_from_columns_and_from_json(service) -> None:
    text = "id,attr.floor,attr.dry,attr.room\nd1,3,true,b 1\nd2,2.5,,007\n"
    lines = '{"id":"d3","attributes":{"floor":7}}\n'

    service.admin("POST", "/v1/devices:import", data=text, headers={"Content-Type": "text/csv"})
    service.admin("POST", "/v1/devices:import", data=lines, headers={"Content-Type": "application/x-ndjson"})

    found = [service.admin("GET", f"/v1/devices/{name}").json["attributes"] for name in ("d1", "d2", "d3")]
    assert found == [{"floor": 3, "dry": True, "room": "b 1"}, {"floor": 2.5, "room": "007"}, {"floor": 7}]


class Killed(BaseException):
    """Ends a process where it stands."""


def work_off(rows: JobStore, kinds: dict[str, Kind]) -> None:
    runner = Runner(rows, kinds)
    while due := rows.due(2**62):
        for job in due:
            runner.take_turn(job)


def import_killed(database: Database, prefix: str, commits: int) -> bool:
    """Import five devices, killed before the n-th commit, and go on with nothing but the database."""
    rows = JobStore(database)
    importer = importing.Importer(DeviceStore(database), GatewayStore(database), rows)
    kinds, left = {importing.JOB_KIND: importer.kind()}, count(-commits + 1)
    content = b"id\n" + b"".join(b"%s-%d\n" % (prefix.encode(), number) for number in range(5))
    found = content, lines.read(content, is_ndjson=False)
    job = importer.start(Jobs(rows, kinds), found, ("default", Who("token:t")), dry_run=False, resume=False)

    def die(_connection: Any) -> None:
        if next(left) == 0:
            raise Killed

    event.listen(database.engine, "commit", die)
    try:
        work_off(rows, kinds)
        is_killed = False
    except Killed:
        is_killed = True
    finally:
        event.remove(database.engine, "commit", die)
    work_off(rows, kinds)

    told = list(csv.DictReader(io.StringIO("".join(rows.read_output(job.id)))))
    query = select(CREDENTIALS.c.device, CREDENTIALS.c.sha256).where(CREDENTIALS.c.device.like(f"{prefix}-%"))
    with database.read() as connection:
        held = sorted(tuple(row) for row in connection.execute(query))
        audited = connection.execute(select(AUDIT.c.object).where(AUDIT.c.action == "device.import")).scalars().all()
    assert sorted((row["id"], hash_token(row["secret"])) for row in told) == held
    assert [row["id"] for row in told] == [f"{prefix}-{number}" for number in range(5)]
    assert sorted(each for each in audited if each.startswith(f"{prefix}-")) == [row["id"] for row in told]
    return is_killed


def test_import_killed_before_any_of_its_commits_does_each_thing_once(config, monkeypatch) -> None:
    monkeypatch.setattr(importing, "PART", 2)
    database = Database(config.registry, config.data)
    try:
        migrate(database, config.data)
        killed = list(takewhile(bool, (import_killed(database, f"k{number}", number) for number in range(1, 20))))
    finally:
        database.close()

    assert len(killed) >= 4  # three parts and the end


def test_two_imports_of_one_file_at_once_register_each_device_once(service) -> None:
    text = "id\n" + "".join(f"d{number}\n" for number in range(1200))

    jobs = [finished(service, job) for job in [start(service, text).json["id"] for _ in range(2)]]

    rows = [row for job in jobs for row in result_of(service, job)]
    assert [job["state"] for job in jobs] == ["done", "done"]
    created = {row["id"]: row["secret"] for row in rows if row["outcome"] == "created"}
    assert (len(created), sorted({row["code"] for row in rows})) == (1200, ["", "device_exists"])
    looked = service.internal("POST", "/internal/devices:lookup", {"ids": list(created)[:500]}).json["devices"]
    assert all(each["credentials"][0]["sha256"] == hash_token(created[each["id"]]) for each in looked)
