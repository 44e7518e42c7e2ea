"""Commands and twins while the registry, the bridge and the gateway are killed at random moments."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from random import Random
from typing import Any

import pytest

from tests.faults.checker.control import FINAL, HttpDevice, Journal, MqttDevice, Operator
from tests.faults.rig import Site
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
KILLS = 200 if os.environ.get("HEADWATER_TEST_LONG") else 7
SEED = 14
BETWEEN = 15  # commands taken between two kills
VICTIMS = ("devices", "devices worker", "devices worker", "bridge", "gateway", "gateway worker")
OVER_MQTT = 4


class Fleet:
    """Devices over MQTT, one over HTTP, one that never comes."""

    def __init__(self, site: Site, stack: ExitStack) -> None:
        run = f"told-{time.time_ns():x}"
        self.absent = f"{run}-absent"
        site.door.register(self.absent)
        names = [f"{run}-{number}" for number in range(OVER_MQTT + 1)]
        journals = [Journal(name) for name in names]
        credentials = [site.door.register(name) for name in names]
        self.mqtt = [
            stack.enter_context(closing(MqttDevice(journal, site.mqtt, credential["secret"])))
            for journal, credential in zip(journals[1:], credentials[1:], strict=True)
        ]
        stack.enter_context(closing(HttpDevice(journals[0], site.installation.url, credentials[0]["bearer"])))
        self.journals = {journal.name: journal for journal in journals}
        wait_until(lambda: all(each.is_connected for each in self.mqtt), 30, "the devices are connected")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def commands_of(site: Site, device: str) -> list[dict[str, Any]]:
    """Give all commands of a device in the order in which they were made."""
    found: list[dict[str, Any]] = []
    query = {"device": device, "limit": "1000"}
    while True:
        page = site.door.get("/v1/commands", **query)
        found += page["items"]
        if not page["next"]:
            return found[::-1]
        query["cursor"] = page["next"]


def strike(site: Site, fleet: Fleet, operator: Operator, ended: dict[str, str]) -> Counter[str]:
    """Kill and drop connections; what had ended at some moment is noted in `ended`."""
    random, killed = Random(SEED), Counter[str]()
    for _ in range(KILLS):
        goal = len(operator.taken) + BETWEEN
        wait_until(lambda goal=goal: len(operator.taken) >= goal, 30, "commands are taken")
        time.sleep(random.uniform(0.0, 0.1))  # the moment is part of the fault
        victim = random.choice(VICTIMS)
        killed[victim] += 1
        pid = site.kill(victim)
        random.choice(fleet.mqtt).drop()
        site.wait_replaced([pid])
        for device in fleet.journals:
            ended |= {each["id"]: each["state"] for each in commands_of(site, device) if each["state"] in FINAL}
    return killed


def judge(shown: list[dict[str, Any]], journal: Journal, operator: Operator) -> None:
    """Hold a device's commands against what it was told and said."""
    taken = {key: do for key, (device, do) in operator.taken.items() if device == journal.name}
    by_id = {each["id"]: each for each in shown}
    assert by_id.keys() == taken.keys(), "a command was lost, or made twice"
    for key, command in by_id.items():
        do = taken[key]
        assert command["state"] == ("expired" if do == "nothing" else do), (command, journal.told.count(key))
        if do != "nothing":
            assert key in journal.told
            said = command["result"] if do == "succeeded" else command["error"]
            number = journal.answered[key][1]
            assert said == ({"n": number} if do == "succeeded" else f"no {number}"), command
        assert command["delivered"] is None or key in journal.told, "delivered, and the device never had it"
    first_told = list(dict.fromkeys(journal.told))
    assert first_told == [key for key in by_id if key in first_told], "told in another order than made"


def test_kills_lose_no_command_and_no_desired_state(site: Site, stack: ExitStack) -> None:
    fleet = Fleet(site, stack)
    operator = Operator(site.door, list(fleet.journals), fleet.absent, SEED)
    ended: dict[str, str] = {}

    killed = strike(site, fleet, operator, ended)
    operator.finish()

    wait_until(lambda: is_quiet(site, fleet), 60, "all commands ended", every_s=0.2)
    for device, journal in fleet.journals.items():
        shown = commands_of(site, device)
        judge(shown, journal, operator)
        changed = {each["id"]: each["state"] for each in shown if ended.get(each["id"], each["state"]) != each["state"]}
        assert not changed, "an end that was another one before"
    for each in commands_of(site, fleet.absent):
        assert (each["state"], each["sent"], each["delivered"]) == ("expired", None, None), each
    for device in fleet.mqtt:
        judge_twin(site, device.journal, operator)
    told = sum(len(journal.told) for journal in fleet.journals.values())
    print(
        f"seed {SEED}: {dict(killed)}, {len(operator.taken)} commands, told {told} times, {len(ended)} ended on the way"
    )


def is_quiet(site: Site, fleet: Fleet) -> bool:
    return all(
        each["state"] in FINAL for device in (*fleet.journals, fleet.absent) for each in commands_of(site, device)
    )


def judge_twin(site: Site, journal: Journal, operator: Operator) -> None:
    """Hold a twin against the patches that were taken, and against what the device had of it."""

    def is_seen() -> bool:
        twin = site.door.get(f"/v1/devices/{journal.name}/twin")
        return bool(twin["reported"].get("seen", 0) == twin["desired_version"])

    wait_until(is_seen, 30, "the device has the newest desired state", every_s=0.1)
    assert site.door.get(f"/v1/devices/{journal.name}/twin")["desired"] == operator.desired[journal.name]
    assert journal.versions == sorted(journal.versions), "an older desired state after a newer one"
