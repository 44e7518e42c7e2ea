"""Docs that cannot rot: every command, path, topic, setting, metric and error code is named in docs/."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from compose.__main__ import build_parser
from devices.app import create_app
from devices.config import DevicesConfig
from ingest.protocols import PROTOCOLS, Protocol
from tests.e2e.platform import Installation
from tests.test_access_matrix import shown
from wire import errors

ROOT = Path(__file__).parent.parent
PACKAGES = ("wire", "chassis", "series", "ingest", "devices", "dashboard_api", "simulators", "compose")
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
OF_PROTOCOLS = {path.parent.name: path.read_text() for path in (ROOT / "ingest/protocols").glob("*/README.md")}
ALL = "\n".join((*PAGES.values(), *OF_PROTOCOLS.values()))
SOURCES = {path: path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def missing(names: set[str]) -> list[str]:
    return sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", ALL))


def config_models() -> list[type[BaseModel]]:
    modules = [
        path for path, text in SOURCES.items() if re.search(r"^class \w+Config\(BaseModel\)", text, re.MULTILINE)
    ]
    loaded = [importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in modules]
    named = [value for module in loaded for name, value in vars(module).items() if name.endswith("Config")]
    return [value for value in named if isinstance(value, type) and issubclass(value, BaseModel)]


def test_every_setting_is_documented() -> None:
    settings = {f"HEADWATER_{field.upper()}" for model in config_models() for field in model.model_fields}

    assert len(settings) > 15
    assert missing(settings) == []


def test_every_error_code_is_documented() -> None:
    classes = [errors.HeadwaterError]
    for kind in classes:
        classes.extend(kind.__subclasses__())

    named = {code for text in SOURCES.values() for code in re.findall(r'\bcode="(\w+)"', text)}

    assert len(named) > 15
    assert missing({kind.code for kind in classes} | set(errors.REASONS) | named) == []


def test_every_metric_is_documented() -> None:
    declared = {
        name for text in SOURCES.values() for name in re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(\w+)"', text)
    }

    assert len(declared) > 10
    assert missing(declared) == []


@pytest.mark.e2e
def test_every_route_is_documented(installation: Installation) -> None:
    declared = {
        f"{method.upper()} {re.sub(r'{[^}]+}', '{}', path)}"
        for path, operations in installation.get("/openapi.json")["paths"].items()
        for method in operations
    }
    documented = re.sub(r"\{[\w-]+\}", "{}", ALL)
    pages = {operation for operation in declared if not operation.partition(" ")[2].startswith(("/v1/", "/api/"))}

    assert len(declared) > 40
    assert sorted(operation for operation in declared - pages if operation not in documented) == []
    assert sorted(page for page in pages if f"`{page.partition(' ')[2]}" not in documented) == []


def test_access_page_names_every_route_of_the_registry(tmp_path: Path) -> None:
    config = DevicesConfig(data=tmp_path, broker="")
    app = create_app(config)
    app.extensions["headwater.workers"].stop()
    app.extensions["headwater.database"].close()
    declared = {
        f"| devices | `{operation.method} {shown(operation.rule)}` | {operation.access} |"
        for operation in app.extensions["headwater.api"].operations
    }

    lacking = sorted(line for line in declared if line not in PAGES["access.md"])

    assert not lacking, "write it anew: HEADWATER_WRITE_MATRIX=1 .venv/bin/pytest tests/test_access_matrix.py"


@pytest.mark.parametrize("declared", PROTOCOLS.values(), ids=PROTOCOLS)
def test_page_of_a_protocol_says_where_it_is_taken(declared: Protocol) -> None:
    topics = {f"{each.partition('/')[0]}/" for each in declared.topics.up + declared.topics.down}
    needed = {declared.name, *declared.media_types, *declared.paths, *declared.states, *topics}
    page = OF_PROTOCOLS[declared.service]

    assert sorted(each for each in needed if each.strip("/") not in page) == []


@pytest.mark.parametrize("topic", ["telemetry", "status", "errors", "twin/desired", "twin/reported"])
def test_every_topic_is_documented(topic: str) -> None:
    assert f"devices/{{id}}/{topic}" in PAGES["topics.md"]


def leaves(parser: argparse.ArgumentParser, path: str) -> list[tuple[str, argparse.ArgumentParser]]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    choices: dict[str, Any] = {name: child for group in groups for name, child in group.choices.items()}
    if not choices:
        return [(path, parser)]
    return [leaf for name, child in choices.items() for leaf in leaves(child, f"{path} {name}")]


def test_every_command_and_flag_is_documented() -> None:
    found = leaves(build_parser(), "headwater")
    commands = {path for path, _ in found}
    flags = {
        option
        for _, parser in found
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }

    assert len(commands) > 20
    assert sorted(command for command in commands if command not in ALL) == []
    assert missing(flags - {"--help"}) == []
