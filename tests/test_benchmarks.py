"""The published figures are those of the files below bench/results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_results", ROOT / "bench" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_of_the_page_agrees_with_the_files(results: ModuleType) -> None:
    page = results.PAGE.read_text()

    shown = page.partition(results.BEGIN)[2].partition(results.END)[0]

    assert shown == results.table(), "make it again: python -m bench --table"


def test_each_row_is_judged_by_its_bounds(results: ModuleType, tmp_path: Path) -> None:
    told = {"date": "2026-01-02", "load_before": 0.5, "load_after": 2.0}
    lines = [
        results.Line("rate", 9, "/s", 10, 30),
        results.Line("rate", 10, "/s", 10, 30),
        results.Line("delay", 20, "ms", 50, 20, is_most=True),
        results.Line("delay", 51, "ms", 50, 20, is_most=True),
        results.Line("goodput", 89, "%", aim=90),
        results.Line("cost", 1234.5, "us"),
    ]
    (tmp_path / "x.json").write_text(json.dumps({"conditions": told, "lines": [each._asdict() for each in lines]}))

    rows = results.table(tmp_path).splitlines()[2:]

    assert [row.split("|")[5].strip() for row in rows] == ["**no**", "yes", "aim", "**no**", "no", ""]
    assert rows[2] == "| delay | 20 ms | ≤ 50 | ≤ 20 | aim | x, 2026-01-02, load 0.5 to 2 |"
    assert rows[5].startswith("| cost | 1,234.5 us |  |  |  |")
