"""Scenarios: groups of devices, what they measure and how often, the faults they have, the phases of a day.

A scenario is a TOML file, one of those in `scenarios/` or one's own (docs/simulator.md describes every key). What a
group measures comes either from a model named there (a class of `simulators.models`, whose values hang together) or
from a value model of each field (`simulators.values`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from simulators import models, values
from simulators.commander import Orders
from simulators.control import Answers, read_answers
from simulators.dice import Dice
from simulators.faults import read_faults
from simulators.models import Values
from simulators.tables import ScenarioError, Table
from simulators.units import parse_duration, parse_rate
from wire import topics

_FOLDER = Path(__file__).parent / "scenarios"
MAX_DEVICES, MAX_GROUPS, MAX_PHASES, MAX_FIELDS = 1_000_000, 64, 64, 256
NO_ORDERS = Orders()
_KINDS = ("float", "int", "bool", "string")
_T = TypeVar("_T")


class Model(Protocol):
    """A thing that changes with time. The same seed and the same times give the same values.

    One that also has `render(now_s) -> bytes` gives its values as JSON by itself, for speed.
    """

    def values(self, now_s: float) -> Values: ...


MODELS: dict[str, Callable[[Dice, float], Model]] = {
    "greenhouse": models.Greenhouse,
    "cold-chain": models.ColdChain,
    "pump": models.Pump,
    "plain": models.Plain,
}
NAMES = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


class FieldModel:
    """A thing whose fields have nothing to do with each other."""

    def __init__(self, sources: dict[str, values.Source]) -> None:
        self._sources = sources

    def values(self, now_s: float) -> Values:
        return {name: source.value(now_s) for name, source in self._sources.items()}


@dataclass(frozen=True, slots=True)
class Group:
    """Devices of one kind."""

    name: str
    type: str
    description: str
    devices: int  # how many; with a number from the command line, their weight
    rate_hz: float | None
    faults: dict[str, float]
    tags: dict[str, list[str]]
    fields: dict[str, dict[str, Any]]  # as the device type declares them
    model: str = ""
    sources: tuple[tuple[str, values.SourceSpec], ...] = ()
    answers: Answers | None = None  # what becomes of commands; None: it listens to none
    firmware: str | None = None  # reported by its twin; None: it has no twin

    def device_type(self, name: str) -> dict[str, Any]:
        """Give the body that creates its device type."""
        return {"name": name, "description": self.description, "fields": self.fields}

    def make(self, dice: Dice, now_s: float, number: int = 0) -> Model:
        """Make the n-th thing, as its tags say it is, in a state that it may have at this time."""
        if not self.model:
            return FieldModel({name: spec.make(dice, now_s) for name, spec in self.sources})
        model = MODELS[self.model](dice, now_s)
        if isinstance(model, models.ColdChain) and "cargo" in self.tags:
            model.carry(self.tags_of(number)["cargo"])
        return model

    def tags_of(self, number: int) -> dict[str, str]:
        """Give the tags of the n-th device."""
        return {key: choices[number % len(choices)] for key, choices in self.tags.items()}


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a run in which some groups send faster or slower, or have other faults."""

    name: str
    duration_s: float
    rate: float  # times the rate of the group
    faults: dict[str, float]
    groups: frozenset[str]  # empty = all


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario as its file says; phases follow each other and then begin again."""

    name: str
    groups: tuple[Group, ...]
    phases: tuple[Phase, ...] = ()
    orders: Orders = NO_ORDERS

    @property
    def devices(self) -> int | None:
        """Devices in all; None when the file leaves it open."""
        return sum(group.devices for group in self.groups) or None

    @property
    def duration_s(self) -> float | None:
        """Length of all phases; None without any."""
        return sum(phase.duration_s for phase in self.phases) or None


def load(name: str) -> Scenario:
    """Load a scenario by name, or from a file (anything with a slash or ending in `.toml`).

    Raises:
        ValueError: no such scenario, or an error in the file; names file, key and limit.
    """
    is_file = name.endswith(".toml") or "/" in name
    if not is_file and name not in NAMES:
        raise ValueError(f"unknown scenario {name!r} (known: {', '.join(NAMES)}, or a FILE.toml)")
    path = Path(name) if is_file else _FOLDER / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ScenarioError(f"{path}: {error}") from error
    return _read(Table(path, content), path.stem)


def load_all(names: Sequence[str]) -> tuple[Scenario, ...]:
    """Load scenarios that run together.

    Raises:
        ValueError: as `load`, or a group's name occurs in two of them.
    """
    loaded = tuple(load(name) for name in names)
    groups = [group.name for scenario in loaded for group in scenario.groups]
    for name in groups:
        if groups.count(name) > 1:
            raise ValueError(f"two groups named {name!r} in {', '.join(names)}")
    return loaded


def _read(table: Table, name: str) -> Scenario:
    if "groups" not in table:
        return Scenario(name, (_read_group(table, name, least=0),))
    table.text("description", "")
    groups = tuple(_read_group(each, each.text("name"), least=1) for each in table.tables("groups", most=MAX_GROUPS))
    known = [group.name for group in groups]
    for index, each in enumerate(known):
        if each in known[:index]:
            raise table.error(f"groups[{index}].name", f"{each!r} is there already")
    phases = tuple(_read_phase(each, frozenset(known)) for each in table.tables("phases", most=MAX_PHASES))
    orders = _read_orders(table.table("orders", {}))
    table.close()
    if phases and not any(phase.rate for phase in phases):
        raise table.error("phases", "all have rate = 0: nothing would ever be sent")
    return Scenario(name, groups, phases, orders)


def _read_orders(table: Table) -> Orders:
    rates = {f"{name}_hz": table.parsed(name, parse_rate) for name in ("commands", "desired") if name in table}
    orders = Orders(**rates, deadline_s=table.parsed("deadline", parse_duration, NO_ORDERS.deadline_s))
    table.close()
    return orders


def _read_group(table: Table, name: str, *, least: int) -> Group:
    if not topics.is_device_id(f"{name}-1"):
        raise table.error(
            "name", f"{name!r} cannot begin a device id: A-Z a-z 0-9 _ . -, 1 to 62, not beginning with a sign"
        )
    model = table.choice("model", tuple(MODELS), "") if "model" in table else ""
    fields, sources = _read_fields(table, has_model=bool(model))
    group = Group(
        name,
        table.text("type", name),
        table.text("description", ""),
        table.count("devices", least, least=least, most=MAX_DEVICES),
        table.parsed("rate", parse_rate) if "rate" in table else None,
        _read_shares(table, "faults", read_faults),
        _read_tags(table),
        fields,
        model,
        sources,
        _read_shares(table, "answers", read_answers) if "answers" in table else None,
        table.text("firmware") if "firmware" in table else None,
    )
    table.close()
    return group


def _read_fields(table: Table, *, has_model: bool) -> tuple[dict[str, Any], tuple[tuple[str, values.SourceSpec], ...]]:
    declared: dict[str, Any] = {}
    sources: list[tuple[str, values.SourceSpec]] = []
    below = table.table("fields")
    for name in below:
        field = below.table(name)
        declared[name] = _read_declaration(field)
        if has_model and "value" in field:
            raise field.error("value", "the group has a model that gives the values: leave out one of the two")
        if not has_model:
            value = field.table("value")
            kind, low, high = (declared[name].get(key) for key in ("type", "min", "max"))
            sources.append((name, values.read_source(value, kind, low, high)))
            value.close()
        field.close()
    if not 0 < len(declared) <= MAX_FIELDS:
        raise table.error("fields", f"{len(declared)} fields, from 1 to {MAX_FIELDS}")
    return declared, tuple(sources)


def _read_declaration(field: Table) -> dict[str, Any]:
    declared: dict[str, Any] = {"type": field.choice("type", _KINDS)}
    declared |= {key: field.number(key) for key in ("min", "max") if key in field}
    declared |= {key: field.text(key) for key in ("unit", "description") if key in field}
    if declared.get("min", 0) > declared.get("max", declared.get("min", 0)):
        raise field.error("max", f"{declared['max']:g}, at least min = {declared['min']:g}")
    return declared


def _read_tags(table: Table) -> dict[str, list[str]]:
    tags = table.table("tags", {})
    found = {key: tags.raw(key) for key in tags}
    for key, choices in found.items():
        if not isinstance(choices, list) or not choices or not all(isinstance(each, str) for each in choices):
            raise tags.error(key, f"not an array of texts: {choices!r}")
    return found


def _read_shares(table: Table, key: str, read: Callable[[dict[str, Any]], _T]) -> _T:
    shares = table.table(key, {})
    try:
        return read({name: shares.raw(name) for name in shares})
    except ValueError as error:
        raise table.error(key, str(error)) from error


def _read_phase(table: Table, known: frozenset[str]) -> Phase:
    groups = table.raw("groups", [])
    if not isinstance(groups, list) or not set(groups) <= known:
        raise table.error("groups", f"not an array of groups: {groups!r} (known: {', '.join(sorted(known))})")
    duration_s = table.parsed("duration", parse_duration)
    if duration_s <= 0:
        raise table.error("duration", "is zero")
    rate = table.number("rate", 1.0, least=0)
    phase = Phase(
        table.text("name", ""), duration_s, rate, _read_shares(table, "faults", read_faults), frozenset(groups)
    )
    table.close()
    return phase
