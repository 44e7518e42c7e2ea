"""The simulator against a whole installation: exact under every fault, and red when the store is damaged on purpose."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.e2e.platform import HEADWATER, Installation

pytestmark = pytest.mark.e2e
FAULTS = "drop=3%,dup=5%,late=5%,malformed=3%,clock=3%,power=2%,storm=2s"


def sim(installation: Installation, tmp_path: Path, command: str, *more: str) -> tuple[int, dict[str, Any]]:
    report = tmp_path / "report.json"
    target = ["--url", installation.url, "--token-file", str(installation.data / "secrets/operator.token")]
    target += ["--mqtt", f"127.0.0.1:{installation.mqtt}"] if command == "run" else []
    result = subprocess.run(
        [HEADWATER, "sim", command, *more, *target, "--report", str(report)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode in {0, 1}, result.stderr
    return result.returncode, json.loads(report.read_text())


@pytest.mark.parametrize(
    ("transport", "processes", "protocol"),
    [
        ("mqtt", "1", "json"),
        ("mqtt", "2", "cbor"),
        ("http", "2", "msgpack"),
        ("http", "1", "line"),
        ("mqtt", "2", "sparkplug"),
    ],
)
def test_verdict_is_exact_with_every_fault(
    installation: Installation, tmp_path: Path, transport: str, processes: str, protocol: str
) -> None:
    code, report = sim(
        installation, tmp_path, "run", "-c", "30", "--rate", "5/s", "--ramp", "200/s", "--duration", "5s", "--verify",
        "--faults", FAULTS, "--transport", transport, "--processes", processes, "--protocol", protocol,
    )  # fmt: skip

    assert code == 0, report
    assert report["sent"] == report["acked"] > 600
    assert (report["lost"], report["duplicates"]) == (0, 0)
    assert report["sent"] <= report["stored"] + report["quarantined"], report
    assert report["quarantined"] > 0


def test_shipped_fleet_is_taken_whole(installation: Installation, tmp_path: Path) -> None:
    code, report = sim(
        installation, tmp_path, "run", "--scenario", "dairy-fleet", "-c", "20", "--duration", "4s", "--verify",
        "--transport", "http",
    )  # fmt: skip

    assert code == 0, report
    assert report["stored"] == report["sent"]
    assert "incomplete" not in report["errors"]


def test_told_fleet_answers_and_follows(installation: Installation, tmp_path: Path) -> None:
    code, report = sim(
        installation, tmp_path, "run", "--scenario", "control-room", "-c", "40", "--duration", "2s", "--ramp", "200/s",
        "--verify", "--send-commands", "20/s", "--command-deadline", "2s", "--processes", "2",
    )  # fmt: skip

    commands, twin = report["commands"], report["twin"]
    assert code == 0, report
    assert commands["sent"] == commands["received"] > 20, commands
    assert sum(commands[name] for name in ("succeeded", "failed", "late", "never")) == commands["received"]
    assert commands["lost"] == commands["malformed"] == commands["refused"] == 0
    assert twin["desired"] > 0
    assert twin["reported"] >= twin["desired"] + 40, twin


def test_damage_to_the_store_turns_the_verdict_red(installation: Installation, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    code, report = sim(
        installation, tmp_path, "run", "-c", "4", "--rate", "10/s", "--duration", "2s", "--prefix", "damaged-",
        "--verify", "--ledger", ledger, "--transport", "http", "--processes", "2",
    )  # fmt: skip
    assert (code, report["stored"]) == (0, 80)
    assert sim(installation, tmp_path, "verify", ledger)[0] == 0

    damage(installation.data / "series", "damaged-%", removed=5, added=2)
    code, report = sim(installation, tmp_path, "verify", ledger, "--drain-timeout", "1s")

    assert code == 1
    assert [report[name] for name in ("sent", "acked", "stored", "lost", "duplicates")] == [80, 80, 75, 5, 2]


def damage(series: Path, devices: str, *, removed: int, added: int) -> None:
    """Take rows out of the embedded store, and put in others a moment beside those that are there."""
    with closing(apsw.Connection(str(series / "catalog.db"))) as catalog:
        found = list(catalog.execute("SELECT sid, measurement_id FROM series WHERE device LIKE ?", (devices,)))
    sids = ",".join(str(sid) for sid, _ in found)
    day = max(series.glob("2*.db"))
    with closing(apsw.Connection(str(day))) as connection:
        connection.set_busy_timeout(5000)
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'm[0-9]*'")]
        (table,) = [
            name for name in tables
            if list(connection.execute(f"SELECT 1 FROM {name} WHERE sid IN ({sids}) LIMIT 1"))
        ]  # fmt: skip
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        beside = ",".join("ts + 1" if name == "ts" else name for name in columns)
        keys = f"SELECT bucket, sid, ts FROM {table} WHERE sid IN ({sids}) ORDER BY sid, ts"
        with connection:
            connection.execute(f"DELETE FROM {table} WHERE (bucket, sid, ts) IN ({keys} LIMIT {removed})")
            connection.execute(
                f"INSERT INTO {table} SELECT {beside} FROM {table} WHERE (bucket, sid, ts) IN ({keys} LIMIT {added})"
            )
