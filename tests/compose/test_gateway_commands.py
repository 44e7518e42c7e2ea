"""`headwater gateway` and the gateway that `headwater device show` names."""

from __future__ import annotations

import json

from tests.compose.gateway import Gateway, run

RULES = {"children": "auto", "child_type": None, "child_tags": {}, "prefixes": [], "max_children": 5}


def test_set_warns_of_children_that_the_prefixes_leave_out(gateway: Gateway, capsys) -> None:
    gateway.answers["GET /v1/devices/g1/gateway"] = RULES
    changed = RULES | {"prefixes": ["a-"], "left_out": 3, "left_out_children": ["b-1", "b-2"]}
    gateway.answers["PUT /v1/devices/g1/gateway"] = changed

    code = run(gateway, "gateway", "set", "g1", "--prefix", "a-", "--json")

    said = capsys.readouterr()
    assert (code, json.loads(said.out)) == (0, changed)
    assert said.err == "headwater: g1 does not speak for 3 of its children any more: b-1, b-2, ...\n"
    assert gateway.body() == RULES | {"prefixes": ["a-"]}


def test_set_that_leaves_nobody_out_says_nothing(gateway: Gateway, capsys) -> None:
    gateway.answers["GET /v1/devices/g1/gateway"] = RULES
    gateway.answers["PUT /v1/devices/g1/gateway"] = RULES | {"left_out": 0, "left_out_children": []}

    assert run(gateway, "gateway", "set", "g1", "--max-children", "7") == 0
    assert capsys.readouterr().err == ""


def test_show_names_the_parent_beside_the_id(gateway: Gateway, capsys) -> None:
    gateway.answers["GET /v1/devices/c1"] = {"id": "c1", "type": None, "parent": "g1", "credentials": []}
    gateway.answers["GET /v1/devices/g1"] = {"id": "g1", "type": None, "parent": None, "credentials": []}

    run(gateway, "device", "show", "c1")
    run(gateway, "device", "show", "g1")

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["id", "c1"], ["parent", "g1"]]
    assert ["id", "g1"] in lines
    assert lines.count(["parent", "g1"]) == 1
    assert len([line for line in lines if line[:1] == ["parent"]]) == 1
