"""Asks the process that tries versions of device types: judging hours of readings must not hold up who posts new ones.

The process (`ingest.trials_main`) is started by the first request, has little priority, and ends soon after the last.
"""

from __future__ import annotations

import select
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TypeVar

import orjson
from pydantic import BaseModel

from chassis import metrics
from ingest.config import IngestConfig
from wire.errors import HeadwaterError, Unavailable

M = TypeVar("M", bound=BaseModel)
PATIENCE_S = 30.0  # for an answer, beyond that of whoever asks; then the process hangs
COMMAND = (sys.executable, "-P", "-m", "ingest.trials_main")


class TrialsProcess:
    """Asks it, a request at a time. Thread-safe."""

    def __init__(self, config: IngestConfig, command: tuple[str, ...] = COMMAND) -> None:
        self._config = config
        self._command = command
        self._lock = threading.Lock()  # guards the process and both of its pipes
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, verb: str, asked: BaseModel, answer: type[M]) -> M:
        """Have a verb done.

        Raises:
            HeadwaterError: what the verb ends with.
            Unavailable: the process ended meanwhile, or hangs.
        """
        line = b"%b %b\n" % (verb.encode(), asked.model_dump_json().encode())
        with self._lock:
            told = self._converse(line) or self._converse(line)  # it may have ended of itself just now
        outcome, _, content = told.partition(b" ")
        if not told.endswith(b"\n"):
            raise Unavailable("the process that tries device types has ended")
        if outcome == b"ok":
            return answer.model_validate_json(content)
        raise _read_problem(content)

    def close(self) -> None:
        """End the process; one that is asked for again starts anew."""
        with self._lock:
            self._end()

    def _converse(self, line: bytes) -> bytes:
        """Give the answer to a line; nothing, or part of one, of a process that ends."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = self._start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(line)
            process.stdin.flush()
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        if not poll.poll(1e3 * PATIENCE_S):
            self._end()
            raise Unavailable("the process that tries device types does not answer")
        told = process.stdout.readline()
        if not told.endswith(b"\n"):
            self._end()
        return told

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=metrics.environment_of_its_own()
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(self._config.model_dump_json().encode() + b"\n")  # not as arguments: it holds a token
        threading.Thread(target=process.wait, name="trials-end", daemon=True).start()  # so that it leaves no zombie
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(BrokenPipeError):  # of what it never read
            process.communicate()


def _read_problem(content: bytes) -> HeadwaterError:
    problem = orjson.loads(content)
    is_passing = problem["status"] == Unavailable.status
    error = (Unavailable if is_passing else HeadwaterError)(problem["detail"], code=problem["code"])
    error.status, error.fields = problem["status"], tuple(problem.get("fields", ()))
    return error
