"""Asks the process that tries versions of device types: judging hours of readings must not hold up who posts new ones.

The process (`ingest.trials_main`) is started by the first request, has little priority, and ends soon after the last.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from typing import TypeVar

import orjson
from pydantic import BaseModel

from chassis import metrics
from ingest.config import IngestConfig
from wire.errors import HeadwaterError, Unavailable

M = TypeVar("M", bound=BaseModel)
PATIENCE_S = 30.0  # for an answer, and for one's turn, beyond that of whoever asks; then the process hangs
_BYTES = 64 * 1024
COMMAND = (sys.executable, "-P", "-m", "ingest.trials_main")


class TrialsProcess:
    """Asks it, a request at a time. Thread-safe."""

    def __init__(
        self, config: IngestConfig, command: tuple[str, ...] = COMMAND, patience_s: float = PATIENCE_S
    ) -> None:
        self._config = config
        self._command = command
        self._patience_s = patience_s
        self._lock = threading.Lock()  # guards the process and both of its pipes
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def ask(self, verb: str, asked: BaseModel, answer: type[M]) -> M:
        """Have a verb done.

        Raises:
            HeadwaterError: what the verb ends with.
            Unavailable: the process ended meanwhile, or hangs, or others have it at work.
        """
        line = b"%b %b\n" % (verb.encode(), asked.model_dump_json().encode())
        if not self._lock.acquire(timeout=self._patience_s):
            raise Unavailable("the process that tries device types is at work for others")
        try:
            told = self._converse(line) or self._converse(line)  # it may have ended of itself just now
        finally:
            self._lock.release()
        outcome, _, content = told.partition(b" ")
        if not told.endswith(b"\n"):
            raise Unavailable("the process that tries device types has ended")
        if outcome == b"ok":
            return answer.model_validate_json(content)
        raise _read_problem(content)

    def close(self) -> None:
        """End the process for good; who waits for its answer is told so."""
        self._is_closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _converse(self, line: bytes) -> bytes:
        """Give the answer to a line; nothing, or part of one, of a process that ends."""
        process = self._process
        if process is None or process.poll() is not None:
            self._end()
            process = self._process = self._start()
            line = b"%b\n%b" % (self._config.model_dump_json().encode(), line)  # not as arguments: it holds a token
        told = b""
        try:
            if self._is_closed:  # looked at when `close` could see the process
                raise Unavailable("the service ends")
            told = _exchange(process, line, time.monotonic() + self._patience_s)
        finally:
            if not told.endswith(b"\n"):  # what it may still say would be taken for the answer to somebody else
                self._end()
        return told

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=metrics.environment_of_its_own(),
        )  # fmt: skip
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        threading.Thread(target=process.wait, name="trials-end", daemon=True).start()  # so that it leaves no zombie
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        process.kill()
        process.wait()


def _exchange(process: subprocess.Popen[bytes], line: bytes, deadline_s: float) -> bytes:
    """Write a line and read one; nothing, or part of one, of a process that ends.

    Raises:
        Unavailable: it is not done at the deadline (monotonic).
    """
    assert process.stdin is not None
    assert process.stdout is not None
    to, of = process.stdin.fileno(), process.stdout.fileno()
    left, parts, poll = memoryview(line), list[bytes](), select.poll()
    poll.register(to, select.POLLOUT)
    poll.register(of, select.POLLIN)
    while left or not (parts and parts[-1].endswith(b"\n")):
        left_s = deadline_s - time.monotonic()
        ready = dict(poll.poll(1e3 * left_s)) if left_s > 0 else {}
        if not ready:
            raise Unavailable("the process that tries device types does not answer")
        if to in ready:
            left = left[_write(to, left) :]
            if not left:
                poll.unregister(to)
        if of in ready:
            parts.append(os.read(of, _BYTES))
            if not parts[-1]:
                break
    return b"".join(parts)


def _write(pipe: int, line: memoryview) -> int:
    """Give how much of a line was taken: all of it, if nobody reads any more."""
    try:
        return os.write(pipe, line[:_BYTES])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(line)


def _read_problem(content: bytes) -> HeadwaterError:
    problem = orjson.loads(content)
    is_passing = problem["status"] == Unavailable.status
    error = (Unavailable if is_passing else HeadwaterError)(problem["detail"], code=problem["code"])
    error.status, error.fields = problem["status"], tuple(problem.get("fields", ()))
    return error
