"""Gathering: what many requests ask at once is answered together."""

from __future__ import annotations

import threading

import pytest

from chassis.gathering import Gathering
from tests.support.tiny_loop import TinyLoop
from tests.support.waiting import wait_until


class Answers:
    """Doubles numbers; the first call waits until it is let go on. Notes which were asked together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go_on = threading.Event()

    def __call__(self, questions) -> list[int | Exception]:
        self.batches.append(list(questions))
        if len(self.batches) == 1:
            assert self.may_go_on.wait(10)
        if 0 in questions:
            raise ZeroDivisionError
        return [ValueError(each) if each < 0 else 2 * each for each in questions]


def ask_all(gathering, answers, questions) -> list[object]:
    loop, got = TinyLoop(), []

    def ask(question: int) -> None:
        try:
            got.append(gathering.ask(question))
        except (ValueError, ZeroDivisionError) as error:
            got.append(type(error))

    loop.begin(lambda: ask(questions[0]))
    wait_until(lambda: answers.batches)
    for question in questions[1:]:
        loop.begin(lambda question=question: ask(question))
    answers.may_go_on.set()
    loop.run_until(lambda: len(got) == len(questions))
    return got


def test_questions_that_come_meanwhile_are_answered_together() -> None:
    answers = Answers()

    got = ask_all(Gathering(answers, 3), answers, [1, 2, 3, 4, 5])

    assert answers.batches == [[1], [2, 3, 4], [5]]
    assert got == [2, 4, 6, 8, 10]


def test_error_of_one_question_is_nobody_elses() -> None:
    answers = Answers()

    assert ask_all(Gathering(answers, 9), answers, [1, -2, 3]) == [2, ValueError, 6]


def test_failed_answering_fails_those_who_asked_together_and_none_after_them() -> None:
    answers = Answers()
    gathering = Gathering(answers, 2)

    assert ask_all(gathering, answers, [1, 0, 3, 4]) == [2, ZeroDivisionError, ZeroDivisionError, 8]
    assert gathering.ask(7) == 14


def test_off_a_loop_each_question_is_asked_alone() -> None:
    answers = Answers()
    answers.may_go_on.set()
    gathering = Gathering(answers, 9)

    assert gathering.ask(4) == 8
    with pytest.raises(ValueError, match="-1"):
        gathering.ask(-1)
