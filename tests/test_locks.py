"""The lock files hold no version below one that is known to be needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "flask": (3, 1, 3),  # CVE-2026-27205
    "werkzeug": (3, 1),  # CVE-2023-46136; what Flask 3.1 wants
    "gunicorn": (27,),  # CVE-2024-1135, CVE-2024-6827, stricter parsing of requests
    "apsw": (3, 54),  # SQLite whose write-ahead log survives a reset
    "pysqlite3": (0, 6, 1),  # the same
    "paho-mqtt": (2, 2),
}
REFUSED = ("gunicorn-h1c",)  # gunicorn[fast] takes an older gunicorn with it
LOCKS = ("requirements.lock", "requirements-dev.lock")


def locked(name: str) -> dict[str, tuple[int, ...]]:
    found = re.findall(r"^([a-z0-9-]+)==([\d.]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {package: tuple(map(int, version.strip(".").split("."))) for package, version in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_locked_versions_are_not_below_what_is_needed(lock: str) -> None:
    versions = locked(lock)

    assert [(name, versions[name]) for name, floor in FLOORS.items() if versions[name] < floor] == []
    assert versions.keys().isdisjoint(REFUSED)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_locked_with_a_hash(lock: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text().strip())

    assert len(entries) > 40
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
