"""Odd text in every part of every route of the registry, on both engines: refused or kept, never a fault of ours.

PostgreSQL takes no NUL and no lone surrogate in a text; SQLite takes both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import TypeAdapter

from chassis.web import Operation

ODD = ["a\0b", "\ud800", "'\"\\;--%_", "9" * 5_000, "\u202e\U0001f98a\x7f"]
BASES: dict[str, dict[str, Any]] = {  # what makes a body whole, so that the odd part is reached
    "/v1/devices": {"id": "odd-1"}, "/v1/groups": {"name": "g"}, "/v1/tenants": {"id": "t"}, "/v1/holds:accept": {"ids": []},
    "/v1/tokens": {"name": "t", "role": "viewer"}, "/v1/invitations": {"name": "i", "role": "viewer"},
    "/v1/operators": {"name": "o", "password": "correct battery staple", "role": "viewer"},
    "/v1/enrolments": {"name": "e", "kind": "token"}, "/v1/devices/<device_id>/commands": {"name": "c"},
    "/v1/devices:bulk": {"query": "id=d1", "action": {"do": "disable"}, "preview": True},
    "/v1/rotations": {"query": "id=nobody"}, "/v1/device-types:install": {"names": []},
    "/internal/operators:login": {"name": "o", "password": "correct battery staple", "remote_ip": "::1"},
    "/internal/devices:lookup": {"ids": []}, "/internal/devices:admit": {"id": "x", "sha256": "0" * 64, "remote_ip": ""},
    "/internal/invitations:accept": {"token": "x", "password": "correct battery staple", "remote_ip": ""},
}  # fmt: skip
LEFT_OUT = re.compile(
    r"^/internal/(changes|broker)|^/v1/devices/<device_id>:(delete|move)$|:learn$"
)  # the last asks another service


def requests_of(operation: Operation) -> Iterator[tuple[str, Any]]:
    """Give paths with bodies: one odd text at a time, in each place that takes one."""
    plain = re.sub(r"<[^>]+>", "d1", operation.rule)
    base = BASES.get(operation.rule)
    for odd in ODD:
        text = quote(odd.encode("utf-8", "surrogatepass"), safe="")
        for part in re.findall(r"<[^>]+>", operation.rule):
            yield re.sub(r"<[^>]+>", "d1", operation.rule.replace(part, text)), base
        for name in operation.query.model_fields if operation.query else ():
            yield f"{plain}?{name}={text}", base
        for name in members(operation):
            yield plain, (base or {}) | {name: odd}
            yield plain, (base or {}) | {name: {odd: odd}}
            yield plain, (base or {}) | {name: [odd]}


def members(operation: Operation) -> list[str]:
    if operation.body is None or isinstance(operation.body, dict):
        return []
    schema = TypeAdapter(operation.body).json_schema()
    return list(schema.get("properties", {}))


def test_odd_text_is_no_fault_of_ours(service) -> None:
    service.register("d1", gateway=True, tags={"site": "a"})
    faults, asked = [], 0
    for operation in service.app.extensions["headwater.api"].operations:
        caller = service.internal if operation.access == "service" else service.admin
        if LEFT_OUT.search(operation.rule) or operation.access == "own":
            continue
        for path, body in requests_of(operation):
            status = caller(operation.method, path, body).status_code
            asked += 1
            faults += [(operation.method, path[:120], str(body)[:120], status)] if status >= 500 else []

    assert faults == [], "\n".join(map(str, faults))
    assert asked > 1_000


@pytest.mark.parametrize("odd", ODD)
def test_odd_text_in_a_table_of_devices_is_a_bad_line(service, odd: str) -> None:
    content = f"id,type,tag.site\nfine,,a\n{odd},,a\nother,{odd},a\nthird,,{odd}\n".encode("utf-8", "surrogatepass")

    answer = service.admin("POST", "/v1/devices:import", data=content, headers={"Content-Type": "text/csv"})

    assert answer.status_code < 500
