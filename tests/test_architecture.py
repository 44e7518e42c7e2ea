"""The limits of the house style, held by a test: one case a file, faults named with file and line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("wire", "chassis", "series", "ingest", "devices", "firmware", "dashboard_api", "simulators", "compose")
SERVICES = ("ingest", "devices", "dashboard_api")
FIXED_FILES = ("app.py", "api.py", "config.py", "service.py")
MAX_FILE_LINES, MAX_BODY_LINES, MAX_NESTING, MAX_ARGUMENTS, MIN_CASES = 400, 40, 3, 6, 3
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def faults_of(path: Path, text: str) -> list[str]:
    tree = ast.parse(text)
    found = [] if ast.get_docstring(tree) else [f"{path}:1 has no module docstring"]
    lines = text.count("\n")
    if lines > MAX_FILE_LINES:
        found.append(f"{path}:{lines} the file has {lines} lines, limit {MAX_FILE_LINES}")
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            found += [f"{path}:{node.lineno} {node.name}: {fault}" for fault in function_faults(node)]
    return found


def function_faults(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    found = []
    body = function.body[1:] if ast.get_docstring(function) else function.body
    length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
    if length > MAX_BODY_LINES:
        found.append(f"body of {length} lines, limit {MAX_BODY_LINES}")
    if nesting(function) > MAX_NESTING:
        found.append(f"blocks nested {nesting(function)} deep, limit {MAX_NESTING}")
    named = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    if len([name for name in named if name not in ("self", "cls")]) > MAX_ARGUMENTS:
        found.append(f"{len(named)} arguments, limit {MAX_ARGUMENTS}")
    return found


def nesting(node: ast.AST, depth: int = 0) -> int:
    inner = [child for child in ast.iter_child_nodes(node) if not isinstance(child, (*FUNCTIONS, ast.ClassDef))]
    return max([depth, *(nesting(child, depth + _deepens(node, child)) for child in inner)])


def _deepens(parent: ast.AST, child: ast.AST) -> bool:
    is_elif = isinstance(parent, ast.If) and isinstance(child, ast.If) and parent.orelse == [child]
    return isinstance(child, BLOCKS) and not is_elif


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_the_limits(path: Path) -> None:
    assert faults_of(path.relative_to(ROOT), path.read_text()) == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_its_fixed_files(service: str) -> None:
    assert [name for name in FIXED_FILES if not (ROOT / service / name).is_file()] == []


def protocol_folders() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "ingest/protocols").glob("*/__init__.py"))


@pytest.mark.parametrize("folder", protocol_folders(), ids=lambda folder: folder.name)
def test_protocol_has_readme_decoder_and_cases(folder: Path) -> None:
    cases = [path for path in (ROOT / "tests/cases" / folder.name).glob("*") if path.is_dir()]

    assert (folder / "README.md").is_file()
    assert (folder / "decoder.py").is_file()
    assert len(cases) >= MIN_CASES, f"tests/cases/{folder.name} has {len(cases)} cases, at least {MIN_CASES}"


def test_steps_of_the_schema_follow_one_another() -> None:
    steps = sorted((ROOT / "devices/database/migrations/versions").glob("[0-9]*.py"))
    said = re.compile(r'^(?:down_)?revision = "?(\w+)"?$', re.MULTILINE)

    found = [(step.name[:4], *said.findall(step.read_text())) for step in steps]

    numbers = [f"{number:04d}" for number in range(1, len(steps) + 1)]
    assert found == list(zip(numbers, numbers, ["None", *numbers], strict=False))


def test_planted_faults_are_named_with_file_and_line() -> None:
    planted = "def f(a, b, c, d, e, f, g):\n" + "".join(f"{' ' * n}if a:\n" for n in range(1, 5)) + "     pass\n"

    found = faults_of(Path("planted.py"), planted)

    assert found == [
        "planted.py:1 has no module docstring",
        "planted.py:1 f: blocks nested 4 deep, limit 3",
        "planted.py:1 f: 7 arguments, limit 6",
    ]


def test_planted_import_breaks_a_contract(tmp_path: Path) -> None:
    planted = {
        "low/__init__.py": '"""Low."""\n',
        "low/thing.py": '"""Thing."""\n\nimport high.thing\n',
        "high/__init__.py": '"""High."""\n',
        "high/thing.py": '"""Thing."""\n',
        ".importlinter": "[importlinter]\nroot_packages =\n    low\n    high\n\n"
        "[importlinter:contract:1]\nname = One way\ntype = layers\nlayers =\n    high\n    low\n",
    }
    for name, text in planted.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert result.returncode == 1, result.stdout + result.stderr
    assert "low.thing -> high.thing (l.3)" in result.stdout
