"""The life of refused data: found by what is wrong with it, exported, its type mended, replayed once; and a bad disk."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.e2e.platform import Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


def test_type_is_mended_and_what_it_refused_comes_back_once(installation: Installation, tmp_path: Path) -> None:
    installation.call("PUT", "/v1/device-types/vat", {"fields": {"level": {"max": 10}}})
    tank = installation.add_device("vat-1", type="vat")
    contents = [json.dumps({"ts": 1_772_600_000_000 + n, "level": 11 + n}).encode() for n in range(3)]
    for content in contents:
        assert installation.post(tank, content).body["code"] == "out_of_range"
    installation.post(tank, b"{")

    chosen = ("--device", tank.id, "--type", "vat", "--type-version", "1", "--code", "out_of_range")
    listed = json.loads(installation.run("quarantine", "list", *chosen, "--json", check=True).stdout)
    target = tmp_path / "found.ndjson"
    installation.run("quarantine", "export", *chosen, "--output", str(target), check=True)
    table = installation.run("quarantine", "export", *chosen, "--format", "csv", check=True).stdout
    exported = [json.loads(line) for line in target.read_text().splitlines()]

    assert [entry["id"] for entry in exported] == [entry["id"] for entry in listed]
    assert [base64.b64decode(entry["raw_base64"]) for entry in reversed(exported)] == contents
    assert len(table.splitlines()) == 4
    still = json.loads(installation.run("quarantine", "replay", *chosen, "--json").stdout)
    assert {each["code"] for each in still["failed"]} == {"out_of_range"}

    installation.call("PUT", "/v1/device-types/vat", {"fields": {"level": {"max": 12}}})
    ids = [entry["id"] for entry in listed]

    def replay() -> dict[str, object]:
        return json.loads(installation.run("quarantine", "replay", *ids, "--json").stdout)

    report = wait_until(lambda: (found := replay())["replayed"] and found, 5)
    assert (report["replayed"], [each["code"] for each in report["failed"]]) == (2, ["out_of_range"])
    wait_until(lambda: len(installation.points(tank.id)) == 2, 5)
    again = replay()
    assert (again["replayed"], again["duplicates"], len(again["failed"])) == (0, 2, 1)
    assert len(installation.points(tank.id)) == 2
    assert installation.run("quarantine", "discard", "--device", tank.id, check=True).stdout == "2 discarded\n"
    assert installation.quarantined(tank.id) == []


def test_damaged_quarantine_does_not_stop_the_platform(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "quarantine.db").write_bytes(b"no database at all" * 1_000)

    running = Installation(data).start()
    try:
        device = running.add_device("d1")
        good, bad = running.post(device, b'{"a":1}'), running.post(device, b"{")
        status = running.status()
        shown = running.run("status").stdout
        waiting = running.quarantined("d1")
    finally:
        assert running.stop() == 0

    assert (good.status, bad.status) == (202, 400)
    assert [entry["code"] for entry in waiting] == ["bad_syntax"]
    [name] = status["quarantine_set_aside"]
    assert (data / name).read_bytes().startswith(b"no database")
    assert f"DAMAGED: {name} was set aside" in shown
    assert "quarantine_set_aside" in running.output()
