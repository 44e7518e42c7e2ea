from __future__ import annotations

import pytest

from series.embedded.days import DAY_NS, day_of, list_days, path_of


@pytest.mark.parametrize(
    ("time_ns", "name"),
    [
        (0, "1970-01-01"),
        (-1, "1969-12-31"),
        (DAY_NS - 1, "1970-01-01"),
        (DAY_NS, "1970-01-02"),
        (951_782_400 * 10**9, "2000-02-29"),
        (-(2**63), "1677-09-21"),
        (2**63 - 1, "2262-04-11"),
    ],
)
def test_file_is_named_after_the_utc_day(tmp_path, time_ns, name):
    path = path_of(tmp_path, day_of(time_ns))
    path.touch()

    assert path.name == f"{name}.db"
    assert list_days(tmp_path) == [day_of(time_ns)]


def test_days_are_listed_oldest_first_and_strangers_ignored(tmp_path):
    for name in (
        "2026-01-02.db",
        "1969-12-31.db",
        "2026-01-02.db-wal",
        "catalog.db",
        "2026-13-01.db",
        "x2026-01-01.db",
    ):
        (tmp_path / name).touch()

    assert list_days(tmp_path) == [-1, 20_455]


def test_missing_folder_has_no_days(tmp_path):
    assert list_days(tmp_path / "nowhere") == []
