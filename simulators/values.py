"""Where a field's values come from in a scenario file: five small models, each driven by time and seeded numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from simulators.dice import Dice
from simulators.tables import Table
from simulators.units import parse_duration

Value = float | int | bool | str
_MAX_STEP_S = 60.0
_MAX_VALUES, _MAX_DIGITS = 64, 9


@dataclass(frozen=True, slots=True)
class Fit:
    """The last step of every number: within the field's limits, of its type, rounded."""

    kind: str
    low: float
    high: float
    digits: int

    def __call__(self, number: float) -> Value:
        number = min(max(number, self.low), self.high)
        return round(number) if self.kind == "int" else round(float(number), self.digits)


class Source(Protocol):
    """One field of one device; the same seed and the same times give the same values."""

    def value(self, at_s: float) -> Value: ...


class SourceSpec(Protocol):
    """A field as its file says, the same for all devices of a group."""

    def make(self, dice: Dice, at_s: float) -> Source: ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same value; it is its own source."""

    fixed: Value

    def make(self, dice: Dice, at_s: float) -> Constant:  # noqa: ARG002 - one form for all
        return self

    def value(self, at_s: float) -> Value:  # noqa: ARG002 - one form for all
        return self.fixed


@dataclass(frozen=True, slots=True)
class Wave:
    """A sine with noise; each device has its own phase unless the file gives one (as a share of the period)."""

    mean: float
    amplitude: float
    period_s: float
    noise: float
    phase: float | None
    fit: Fit

    def make(self, dice: Dice, at_s: float) -> _WaveSource:  # noqa: ARG002 - one form for all
        return _WaveSource(self, dice.random() if self.phase is None else self.phase, dice)


@dataclass(slots=True)
class _WaveSource:
    _spec: Wave
    _phase: float
    _dice: Dice

    def value(self, at_s: float) -> Value:
        spec = self._spec
        level = spec.mean + spec.amplitude * math.sin(math.tau * (at_s / spec.period_s + self._phase))
        return spec.fit(self._dice.gauss(level, spec.noise) if spec.noise else level)


@dataclass(frozen=True, slots=True)
class Walk:
    """A random walk between two walls; `step` is its spread after a second."""

    start: float
    step: float
    low: float
    high: float
    fit: Fit

    def make(self, dice: Dice, at_s: float) -> _WalkSource:
        return _WalkSource(self, self.start, at_s, dice)


@dataclass(slots=True)
class _WalkSource:
    _spec: Walk
    _level: float
    _last_s: float
    _dice: Dice

    def value(self, at_s: float) -> Value:
        spec, dt_s = self._spec, min(max(at_s - self._last_s, 0.0), _MAX_STEP_S)
        self._last_s = at_s
        level = self._level + self._dice.gauss(0.0, spec.step * math.sqrt(dt_s))
        self._level = min(max(level, spec.low), spec.high)
        return spec.fit(self._level)


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts up by `step` a reading, as a meter does."""

    start: float
    step: float
    fit: Fit

    def make(self, dice: Dice, at_s: float) -> _CounterSource:  # noqa: ARG002 - one form for all
        return _CounterSource(self)


@dataclass(slots=True)
class _CounterSource:
    _spec: Counter
    _steps: int = -1

    def value(self, at_s: float) -> Value:  # noqa: ARG002 - one form for all
        self._steps += 1
        return self._spec.fit(self._spec.start + self._steps * self._spec.step)


@dataclass(frozen=True, slots=True)
class States:
    """Holds one of some values for a while, `hold_s` on average, then any of the others."""

    options: tuple[Value, ...]
    hold_s: float

    def make(self, dice: Dice, at_s: float) -> _StatesSource:
        source = _StatesSource(self, dice.choice(self.options), 0.0, dice)
        source.hold(at_s)
        return source


@dataclass(slots=True)
class _StatesSource:
    _spec: States
    _state: Value
    _until_s: float
    _dice: Dice

    def hold(self, at_s: float) -> None:
        self._until_s = at_s + self._dice.expovariate(1 / self._spec.hold_s)

    def value(self, at_s: float) -> Value:
        if at_s >= self._until_s:
            self._state = self._dice.choice([each for each in self._spec.options if each != self._state])
            self.hold(at_s)
        return self._state


MODELS = ("constant", "wave", "walk", "counter", "states")


def read_source(table: Table, kind: str, low: float | None, high: float | None) -> SourceSpec:
    """Read a field's `value` table for a field of this type and these limits.

    Raises:
        ScenarioError: something in it does not fit.
    """
    model = table.choice("model", MODELS)
    if model == "constant":
        return Constant(_checked(table, "value", table.raw("value"), kind))
    if model == "states":
        return _read_states(table, kind)
    if kind not in {"float", "int"}:
        raise table.error("model", f"{model!r} gives numbers, the field is of type {kind} (use states or constant)")
    digits = table.count("digits", 2, most=_MAX_DIGITS) if kind == "float" else 0
    fit = Fit(kind, -math.inf if low is None else low, math.inf if high is None else high, digits)
    if model == "counter":
        return Counter(table.number("start", 0), table.number("step", 1), fit)
    if model == "walk":
        floor = table.number("low") if low is None else table.number("low", low)
        ceiling = table.number("high") if high is None else table.number("high", high)
        if floor >= ceiling:
            raise table.error("high", f"{ceiling:g}, above low = {floor:g}")
        return Walk(table.number("start", (floor + ceiling) / 2), table.number("step", least=0), floor, ceiling, fit)
    phase = table.number("phase", 0.0) if "phase" in table else None
    mean, amplitude = table.number("mean"), table.number("amplitude", 0.0, least=0)
    return Wave(mean, amplitude, _duration(table, "period", "24h"), table.number("noise", 0.0, least=0), phase, fit)


def _read_states(table: Table, kind: str) -> States:
    options = table.raw("values", [False, True] if kind == "bool" else None)
    if not isinstance(options, list) or not 1 < len(options) <= _MAX_VALUES:
        raise table.error("values", f"not an array of 2 to {_MAX_VALUES} values")
    if any(options.count(each) > 1 for each in options):
        raise table.error("values", "a value stands there twice")
    return States(tuple(_checked(table, "values", each, kind) for each in options), _duration(table, "hold", "1m"))


def _checked(table: Table, key: str, value: object, kind: str) -> Value:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "float": is_number,
        "int": is_number and isinstance(value, int),
        "bool": isinstance(value, bool),
        "string": isinstance(value, str),
    }
    if not fits[kind] or not isinstance(value, float | int | str):
        raise table.error(key, f"not of the field's type {kind}: {value!r}")
    return float(value) if kind == "float" else value


def _duration(table: Table, key: str, default: str) -> float:
    duration_s = table.parsed(key, parse_duration, default)
    if duration_s <= 0:
        raise table.error(key, "is zero")
    return duration_s
