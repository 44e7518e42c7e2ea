from __future__ import annotations

import pytest


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
    assert load(service, b"x" * (8 * 1024 * 1024 + 1)).status_code == 413
    assert load(service, b"id\nd1\n", content_type="application/json").status_code == 415


def test_ten_thousand_devices_are_registered_by_one_call(service) -> None:
    text = "id,type,tag.site\n" + "".join(f"bulk-{n},pump,s{n % 7}\n" for n in range(10_000))

    report = load(service, text).json

    assert report["created"] == len(report["credentials"]) == 10_000
    assert service.admin("GET", "/v1/audit?object=bulk-9999").json["items"][0]["action"] == "device.import"
    assert len(service.admin("GET", "/v1/devices?tag=site:s3&limit=1000").json["items"]) == 1_000
