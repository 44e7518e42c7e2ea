"""`headwater group`: groups of devices from the shell; and the words by which commands choose and change devices."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compose import tables
from compose.client import add_group, connect, finish, path
from compose.folder import StartError
from wire.errors import HeadwaterError

GROUP_COLUMNS = ("name", "count", "query", "description")


def configure(commands: Any) -> None:
    """Add `headwater group`."""
    actions = add_group(commands, "group", "groups of devices: listed, or found by a query")
    finish(actions.add_parser("list", help="list groups with what they hold now"), _list)
    add = actions.add_parser("add", help="make a group; with --query it holds whatever that finds")
    add.add_argument("name")
    add.add_argument("--query", metavar="QUERY", help="see docs/query.md; without it the group's members are listed")
    add.add_argument("--description", default="", metavar="TEXT")
    finish(add, _add)
    update = actions.add_parser("update", help="change query or description of a group")
    update.add_argument("name")
    update.add_argument("--query", metavar="QUERY")
    update.add_argument("--description", metavar="TEXT")
    finish(update, _update)
    for name, help_text, run in (
        ("show", "show a group", _show),
        ("delete", "delete a group; its devices stay", _delete),
    ):
        parser = actions.add_parser(name, help=help_text)
        parser.add_argument("name")
        finish(parser, run)
    for name, help_text in (("put-in", "put devices into a group"), ("take-out", "take devices out of a group")):
        parser = actions.add_parser(name, help=help_text)
        parser.add_argument("name")
        parser.add_argument("devices", nargs="+", metavar="ID")
        finish(parser, _move)
        parser.set_defaults(verb="add" if name == "put-in" else "remove")


def add_patch(parser: argparse.ArgumentParser) -> None:
    """Add the options that change type, tags and attributes."""
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--type", metavar="T")
    kind.add_argument("--no-type", action="store_true", help="no device type any more")
    parser.add_argument("--tag", action="append", default=[], metavar="K=V", help="set a tag")
    parser.add_argument("--no-tag", action="append", default=[], metavar="K", help="remove a tag")
    parser.add_argument("--attr", action="append", default=[], metavar="K=V", help="set an attribute")
    parser.add_argument("--no-attr", action="append", default=[], metavar="K", help="remove an attribute")


def to_patch(given: argparse.Namespace) -> dict[str, Any]:
    """Give what those options say as the body of a PATCH."""
    patch: dict[str, Any] = {}
    if given.type or given.no_type:
        patch["type"] = given.type
    if given.tag or given.no_tag:
        patch["tags"] = to_tags(given.tag) | dict.fromkeys(given.no_tag)
    if given.attr or given.no_attr:
        patch["attributes"] = to_attributes(given.attr) | dict.fromkeys(given.no_attr)
    return patch


def to_tags(words: list[str]) -> dict[str, str]:
    """Read the words of `--tag`.

    Raises:
        StartError: one is not KEY=VALUE.
    """
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise StartError(f"--tag is KEY=VALUE, not {word!r}")
        found[key] = value
    return found


def to_attributes(words: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE: numbers, true and false as JSON has them, anything else and what is in quotes as text."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise StartError(f"--attr is KEY=VALUE, not {word!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[key] = value if isinstance(value, bool | int | float | str) else text
    return found


@contextmanager
def pointing_at(query: str | None) -> Iterator[None]:
    """Show the place in a query that the platform could not read."""
    try:
        yield
    except HeadwaterError as error:
        if error.code != "bad_query" or not query or "\n" in query:
            raise
        marks = "^" * max(1, int(error.extra["length"]))
        raise StartError(f"{error.detail}\n  {query}\n  {' ' * int(error.extra['position'])}{marks}") from None


def _list(given: argparse.Namespace) -> int:
    found = connect(given).call("GET", path("groups"))["items"]
    if not given.json:
        found = [group | {"count": f"{group['count']}{'' if group['is_exact'] else '+'}"} for group in found]
    tables.show(found, GROUP_COLUMNS, as_json=given.json)
    return 0


def _add(given: argparse.Namespace) -> int:
    body = {"name": given.name, "description": given.description, "query": given.query}
    with pointing_at(given.query):
        return _show_group(given, connect(given).call("POST", path("groups"), body))


def _update(given: argparse.Namespace) -> int:
    body = {name: getattr(given, name) for name in ("query", "description") if getattr(given, name) is not None}
    with pointing_at(given.query):
        return _show_group(given, connect(given).call("PATCH", path("groups", given.name), body))


def _show(given: argparse.Namespace) -> int:
    return _show_group(given, connect(given).call("GET", path("groups", given.name)))


def _delete(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path("groups", given.name))
    tables.show([{"name": given.name, "done": "deleted"}], ("name", "done"), as_json=given.json)
    return 0


def _move(given: argparse.Namespace) -> int:
    done = connect(given).call("POST", path("groups", f"{given.name}:{given.verb}"), {"devices": given.devices})
    if given.json:
        tables.show_json(done)
    else:
        unknown = f", unknown: {' '.join(done['unknown'])}" if done["unknown"] else ""
        print(f"{done['changed']} changed{unknown}")
    return 1 if done["unknown"] else 0


def _show_group(given: argparse.Namespace, group: dict[str, Any]) -> int:
    if given.json:
        tables.show_json(group)
        return 0
    for name, value in group.items():
        print(f"{name:<12} {tables.cell(value)}")
    return 0
