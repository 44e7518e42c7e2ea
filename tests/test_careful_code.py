"""What no line of the services may do: build a query out of text, or compare a secret in a time that tells of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The store's and the writer's queries name tables and columns by numbers of ours: ruff's S608 demands a reason at each.
QUERYING = ("devices", "firmware", "dashboard_api")
COMPARING = ("chassis", "devices", "ingest", "firmware", "dashboard_api", "compose")
TAKES_SQL = {"text", "execute", "exec_driver_sql", "literal_column", "op", "prefix_with", "suffix_with"}
STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|DROP|ALTER|MERGE|TRUNCATE|VACUUM)\b")
SECRET = re.compile(r"(^|_)(secret|token|digest|password|hashed|signature|key_hash|mac|bearer|cookie)$")
HARMLESS = {  # file -> what the line names: fixed words, a file's digest, what one person typed twice
    "devices/database/engine.py": "PRAGMA", "devices/onboarding/importing.py": "job.spec", "devices/jobs/api.py": "job.by",
    "dashboard_api/own.py": "again", "compose/commands/access.py": "again",
}  # fmt: skip


def modules(packages: tuple[str, ...]) -> list[Path]:
    found = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in found if "versions" not in path.parts]  # steps of the schema have no input


def is_built(node: ast.AST) -> bool:
    """Tell whether an expression puts text together: f-string, %, + with a string, .format, .join."""
    if isinstance(node, ast.BinOp):
        is_text = any(
            isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (node.left, node.right)
        )
        return is_text or is_built(node.left) or is_built(node.right)
    is_method = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return isinstance(node, ast.JoinedStr) or (is_method and node.func.attr in ("format", "format_map", "join"))


def starts_as_statement(node: ast.AST) -> bool:
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else getattr(node, "left", None)
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and bool(STATEMENT.match(first.value))


def built_queries(tree: ast.AST) -> list[int]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found += [node.lineno] if name in TAKES_SQL and is_built(node.args[0]) else []
        found += [node.lineno] if starts_as_statement(node) else []
    return found


def is_secret(node: ast.AST) -> bool:
    name = getattr(node, "attr", getattr(node, "id", ""))
    if isinstance(node, ast.Attribute) and getattr(node.value, "attr", "") == "c":
        return False  # a column: the database compares, by index, and what it compares is a hash
    return isinstance(node, ast.Name | ast.Attribute) and bool(SECRET.search(name))


def plain_comparisons(tree: ast.AST) -> list[int]:
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            continue
        sides = (node.left, *node.comparators)
        if any(map(is_secret, sides)) and not any(isinstance(side, ast.Constant) for side in sides):
            found.append(node.lineno)
    return found


def faults(path: Path, lines: list[int]) -> list[str]:
    text, known = path.read_text().split("\n"), HARMLESS.get(str(path.relative_to(ROOT)))
    return [f"{path}:{line} {text[line - 1]}" for line in lines if known is None or known not in text[line - 1]]


@pytest.mark.parametrize("package", QUERYING)
def test_no_query_is_built_of_text(package: str) -> None:
    paths = modules((package,))

    assert [fault for path in paths for fault in faults(path, built_queries(ast.parse(path.read_text())))] == []


@pytest.mark.parametrize("package", COMPARING)
def test_secrets_are_compared_in_constant_time(package: str) -> None:
    paths = modules((package,))

    assert [fault for path in paths for fault in faults(path, plain_comparisons(ast.parse(path.read_text())))] == []


@pytest.mark.parametrize(
    "line",
    ['db.execute(f"SELECT {x}")', 'text("SELECT " + x)', 'text("SELECT %s" % x)', 'q = f"DELETE FROM a WHERE b={x}"',
     'execute("SELECT {}".format(x))', 'q = "UPDATE a SET b = " + x', 'literal_column(f"{x} + 1")'],
)  # fmt: skip
def test_planted_query_is_found(line: str) -> None:
    assert built_queries(ast.parse(line)) != []


@pytest.mark.parametrize("line", ["presented == token", "a.secret != b", "x == self.password", "row.digest == digest"])
def test_planted_comparison_is_found(line: str) -> None:
    assert plain_comparisons(ast.parse(line)) != []
