"""Scenarios: what kind of thing a simulated device is, which fields it sends, and what its device type says.

A scenario is a TOML file in `scenarios/`; the behaviour it names is a class in `simulators.models`.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from simulators import models
from simulators.models import Values

_FOLDER = Path(__file__).parent / "scenarios"


class Model(Protocol):
    """A thing that changes with time. The same seed and the same times give the same values."""

    def values(self, now_s: float) -> Values: ...


MODELS: dict[str, Callable[[random.Random, float], Model]] = {
    "greenhouse": models.Greenhouse,
    "cold-chain": models.ColdChain,
    "pump": models.Pump,
    "plain": models.Plain,
}
NAMES = ("greenhouse", "cold-chain", "pump", "plain")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario as its file says."""

    name: str
    model: str
    type: str
    description: str
    tags: dict[str, list[str]]
    fields: dict[str, dict[str, Any]]

    def device_type(self, name: str) -> dict[str, Any]:
        """Give the body that creates its device type."""
        return {"name": name, "description": self.description, "fields": self.fields}

    def make(self, rng: random.Random, now_s: float, number: int = 0) -> Model:
        """Make the n-th thing, as its tags say it is, in a state that it may have at this time."""
        model = MODELS[self.model](rng, now_s)
        if isinstance(model, models.ColdChain):
            model.carry(self.tags_of(number)["cargo"])
        return model

    def tags_of(self, number: int) -> dict[str, str]:
        """Give the tags of the n-th device."""
        return {key: choices[number % len(choices)] for key, choices in self.tags.items()}


def load(name: str) -> Scenario:
    """Load a scenario by name.

    Raises:
        ValueError: no such scenario.
    """
    if name not in NAMES:
        raise ValueError(f"unknown scenario {name!r} (known: {', '.join(NAMES)})")
    with (_FOLDER / f"{name}.toml").open("rb") as file:
        text = tomllib.load(file)
    return Scenario(name, text["model"], text["type"], text["description"], text["tags"], text["fields"])
