"""What a run was asked to do, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulators.commander import Orders
from simulators.conditions import Condition
from simulators.control import Answers
from simulators.scenario import Group, Scenario


@dataclass(frozen=True, slots=True)
class Options:
    """Every flag of `headwater sim run`, checked."""

    devices: int
    processes: int
    rate_hz: float | None  # readings per second of each device; None = as its group says
    duration_s: float | None  # None = until stopped
    ramp_hz: float  # devices started per second
    transport: str
    protocol: str
    qos: int
    version: int
    topic: str
    size: int
    batch: int
    window: int
    outbox: int | None  # acknowledged readings a device keeps; None = as many as a fleet of this size has memory for
    keepalive_s: int
    url: str
    mqtt: tuple[str, int]
    mqtt_tls: bool
    ca: Path | None
    token_file: Path
    register: bool
    scenarios: tuple[Scenario, ...]
    prefix: str
    type: str | None
    credentials: Path | None
    seed: int
    faults: dict[str, float]  # these go before those of the scenario
    answers: Answers | None  # what becomes of commands; None = as the group says
    firmware: str | None  # what twins report; None = as the group says
    orders: Orders  # what is sent to the fleet
    verify: bool
    ledger: Path | None
    drain_s: float
    report: Path | None
    fail_if: tuple[Condition, ...]
    metrics_port: int | None
    settings: dict[str, Any]  # the flags as they go into the report

    def answers_of(self, group: Group) -> Answers | None:
        """Give what becomes of commands to devices of a group; None: they listen to none."""
        return group.answers if self.answers is None else self.answers

    def firmware_of(self, group: Group) -> str | None:
        """Give the version that twins of a group report; None: they have none."""
        return group.firmware if self.firmware is None else self.firmware

    @property
    def groups(self) -> list[Group]:
        """All groups of all scenarios."""
        return [group for scenario in self.scenarios for group in scenario.groups]
