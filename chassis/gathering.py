"""Questions of many requests, answered together: a thousand that come at once share a transaction and its fsync."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from chassis import parking

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(slots=True, eq=False)
class _Asked(Generic[Q, A]):
    question: Q
    waiter: parking.Waiter
    answer: Future[A] = field(default_factory=Future)


class Gathering(Generic[Q, A]):
    """Answers together what is asked while earlier questions are being answered. Thread-safe."""

    def __init__(self, answer: Callable[[Sequence[Q]], Sequence[A | Exception]], most: int) -> None:
        """Prepare.

        Args:
            answer: gives for each question its answer, or the error that its request ends with; it may block.
            most: questions at once.
        """
        self._answer = answer
        self._most = most
        self._lock = threading.Lock()  # guards the two below
        self._asked: deque[_Asked[Q, A]] = deque()
        self._is_at_work = False

    def ask(self, question: Q) -> A:
        """Give the answer to a question; outside of an event loop it is asked alone: threads are few.

        Raises:
            Exception: what the answer is, or what answering failed with.
        """
        loop = parking.loop()
        asked = _Asked[Q, A](question, parking.waiter())
        if loop is None:
            self._tell([asked])
            return asked.answer.result()
        with self._lock:
            self._asked.append(asked)
            begins, self._is_at_work = not self._is_at_work, True
        if begins:
            loop.start(self._work)
        asked.waiter.wait()
        return asked.answer.result()

    def _work(self) -> None:
        while batch := self._next():
            self._tell(batch)

    def _next(self) -> list[_Asked[Q, A]]:
        with self._lock:
            batch = [self._asked.popleft() for _ in range(min(self._most, len(self._asked)))]
            self._is_at_work = bool(batch)
        return batch

    def _tell(self, batch: Sequence[_Asked[Q, A]]) -> None:
        try:
            answers = self._answer([asked.question for asked in batch])
        except BaseException as error:  # whatever it is, it belongs to the requests
            for asked in batch:
                asked.answer.set_exception(error)
        else:
            for asked, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    asked.answer.set_exception(answer)
                else:
                    asked.answer.set_result(answer)
        for asked in batch:
            asked.waiter.set()
