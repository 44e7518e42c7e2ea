"""Files that name the gateways of their devices."""

from __future__ import annotations

import csv
import io

import pytest

from devices.onboarding.importing import PART
from tests.support.waiting import wait_until


def load(service, text: str, query: str = "", content_type: str = "text/csv"):
    answer = service.admin("POST", f"/v1/devices:import{query}", data=text, content_type=content_type)
    assert answer.status_code < 300, answer.json
    return answer.json


def load_as_job(service, text: str, query: str = "") -> list[dict[str, str]]:
    job = load(service, text, f"?job=true{query}")
    wait_until(lambda: service.admin("GET", f"/v1/jobs/{job['id']}").json["state"] == "done")
    return list(
        csv.DictReader(io.StringIO(service.admin("GET", f"/v1/jobs/{job['id']}/result").get_data(as_text=True)))
    )


def failures(report) -> dict[str, str]:
    return {row["id"]: row["code"] for row in report["failed"]}


def children(service, gateway: str) -> list[str]:
    return [item["id"] for item in service.admin("GET", f"/v1/devices/{gateway}/children").json["items"]]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("id,type,gateway,parent\ng1,,true,\nc1,sensor,,g1\nc2,,,g0\nd1,,,\n", "text/csv"),
        (
            '{"id":"g1","gateway":true}\n{"id":"c1","type":"sensor","parent":"g1"}\n{"id":"c2","parent":"g0"}\n{"id":"d1"}\n',
            "application/x-ndjson",
        ),
    ],
    ids=["csv", "ndjson"],
)
def test_devices_of_a_file_become_children_of_known_and_new_gateways(service, text, kind) -> None:
    service.register("g0", gateway=True)

    report = load(service, text, content_type=kind)

    assert (report["created"], report["failed"]) == (4, [])
    assert (children(service, "g1"), children(service, "g0")) == (["c1"], ["c2"])
    assert [row["device"] for row in report["credentials"]] == ["g1", "d1"]  # a child has none
    assert service.admin("GET", "/v1/devices/c1").json["type"] == "sensor"


@pytest.mark.parametrize("dry", ["", "?dry_run=true"])
def test_line_whose_parent_does_not_take_it_says_why(service, dry) -> None:
    service.register("plain")
    service.register("narrow", gateway=True)
    service.admin("PUT", "/v1/devices/narrow/gateway", {"prefixes": ["n-"], "max_children": 1})
    service.admin("POST", "/v1/tenants", {"id": "acme"})
    service.register("theirs", gateway=True)
    assert service.admin("POST", "/v1/devices/theirs:move", {"tenant": "acme"}).status_code == 204
    text = (
        "id,gateway,parent\nc1,,later\nlater,true,\nc2,,plain\nc3,,theirs\nc4,,narrow\nn-1,,narrow\nn-2,,narrow\n"
        "g2,true,later\nc5,,c5\nc6,,bad id\nc7,,later\ntheirs,true,\nc8,,theirs\n"
    )

    report = load(service, text, dry)

    refused = {
        "c1": "gateway_not_found", "c2": "not_a_gateway", "c3": "gateway_not_found", "c4": "beyond_prefixes",
        "n-2": "too_many_children", "g2": "not_a_child", "c5": "gateway_not_found", "c6": "bad_value",
        "theirs": "device_exists",
    }  # fmt: skip
    is_told_too_early = {} if dry else {"c8": "gateway_not_found"}  # a dry run asks nobody but the file
    assert failures(report) == refused | is_told_too_early
    assert report["failed"][0]["detail"] == "no gateway later: it must be registered first"
    if not dry:
        assert (children(service, "later"), children(service, "narrow")) == (["c7"], ["n-1"])


def test_gateway_of_an_earlier_part_of_a_job_has_its_children(service) -> None:
    between = "".join(f"b{number},,g1\n" for number in range(PART))
    text = f"id,gateway,parent\ng1,true,\n{between}c1,,g1\nc2,,g2\n"

    tried = load_as_job(service, text, "&dry_run=true")
    done = load_as_job(service, text)

    assert [row["outcome"] for row in tried[-2:]] == ["would_be_created", "failed"]
    assert [(row["id"], row["code"], bool(row["secret"])) for row in (done[0], *done[-2:])] == [
        ("g1", "", True),
        ("c1", "", False),
        ("c2", "gateway_not_found", False),
    ]
    assert service.admin("GET", "/v1/devices/c1/parent").json == {"gateway": "g1"}
