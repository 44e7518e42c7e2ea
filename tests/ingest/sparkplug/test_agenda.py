"""The agenda: the next moment of many, told without looking at all."""

from __future__ import annotations

import random

from ingest.protocols.sparkplug.agenda import SPARE, Agenda


def test_the_first_moment_is_that_of_the_plan_as_it_is_now() -> None:
    agenda, plan, dice = Agenda[int](), dict[int, float](), random.Random(1)
    for _ in range(5_000):
        key, moment = dice.randrange(20), dice.choice([None, dice.random()])
        agenda.plan(key, moment)
        plan.pop(key, None)
        if moment is not None:
            plan[key] = moment
        first = agenda.first()
        assert first == min(((at, each) for each, at in plan.items()), default=None)


def test_moments_that_are_put_off_do_not_pile_up() -> None:
    agenda = Agenda[str]()
    agenda.plan("first", 0.0)
    for moment in range(10 * SPARE):
        agenda.plan("later", 1.0 + moment)

    assert len(agenda._heap) <= SPARE + 5


def test_of_one_moment_the_first_planned_comes_first() -> None:
    agenda = Agenda[str]()
    for key in ("b", "a"):
        agenda.plan(key, 0.0)

    assert agenda.first() == (0.0, "b")
