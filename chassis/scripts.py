"""JavaScript that people wrote, run where it can do no harm: in a process of its own, with little time and memory.

Why a process: the engine holds Python's lock while it runs, some of its built-in functions heed no time limit, and a
fault of the engine must not end a service. Each run has a fresh engine (0.2 ms), so nothing is left for the next one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from chassis.metrics import Counter

CHILD = Path(__file__).with_name("script_child.py")
# Of the clock on the wall: the process's own timer of CPU time ends it long before, unless others froze it. With what
# else a batch may take (ingest.batches) it is less than a bridge waits for.
ANSWER_S = 5.0
END_S = 0.5  # for the process to end by itself once nobody asks any more
MAX_MESSAGE_CHARS = 256
STARTS = Counter("headwater_script_starts", "Starts of the process that runs scripts")
_BYTES = 64 * 1024
_LIMITS = {"InternalError: interrupted": "time", "InternalError: out of memory": "memory", "null": "memory"}


class Limits(NamedTuple):
    """What one run may use."""

    time_ms: int = 50  # of CPU
    memory_kib: int = 8 * 1024
    most_chars: int = 64 * 1024  # of the result


class ScriptFault(Exception):  # noqa: N818 - an answer about the script
    """Why a script gave nothing; `limit` says which one it met: `time`, `memory`, or none."""

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit


class Scripts:
    """Runs scripts, one after another. Thread-safe; its process starts with the first."""

    def __init__(self) -> None:
        self.answer_s = ANSWER_S  # smaller in tests
        self._lock = threading.Lock()  # guards all below
        self.runs = 0
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, text: str, call: str, limits: Limits = Limits()) -> str:  # noqa: B008 - it cannot be changed
        """Evaluate a script and then an expression, whose value is a text.

        May block: on an event loop call it by `parking.aside`.

        Raises:
            ScriptFault: it threw something, met a limit, or gave something else.
        """
        asked = json.dumps({"text": text, "call": call, **limits._asdict()}).encode() + b"\n"
        with self._lock:
            self.runs += 1
            answer = self._ask(asked) or self._ask(asked)  # somebody else may have ended the process
        if answer is None:
            raise ScriptFault("the process that runs scripts ended")
        if "value" in answer:
            value: str = answer["value"]
            return value
        raise _fault(answer["fault"], limits)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, asked: bytes) -> dict[str, Any] | None:
        """Hand a run to the process; None: it ended, and that was not the script's time limit."""
        child, deadline_s = self._child or self._start(), time.monotonic() + self.answer_s
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            _write(child.stdin.fileno(), asked, deadline_s)
            line = _read_line(child.stdout.fileno(), deadline_s)
        except OSError:
            line = b""
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self._end()
        if code is None:
            raise ScriptFault(f"it gave no answer within {self.answer_s:.0f} s", "time")
        return {"fault": "InternalError: interrupted"} if code == -signal.SIGPROF else None

    def _start(self) -> subprocess.Popen[bytes]:
        STARTS.inc()
        self._child = subprocess.Popen(
            [sys.executable, "-I", str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd="/", env={}, bufsize=0,
        )  # fmt: skip
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)  # a script is longer than a pipe: see _write
        return self._child

    def _end(self) -> int | None:
        """End the process; give how it ended by itself, None where it had to be ended."""
        child, self._child = self._child, None
        if child is None:
            return 0
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not yet written has nobody to read it
                pipe.close()
        try:
            return child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return None


def run_once(text: str, call: str, limits: Limits) -> str:
    """Evaluate a script and an expression as `Scripts.run` does, in a process for this alone (0.1 s)."""
    scripts = Scripts()
    try:
        return scripts.run(text, call, limits)
    finally:
        scripts.close()


def _write(pipe: int, content: bytes, deadline_s: float) -> None:
    """Write all of it; as much as can be until then, to one who reads nothing: a process may be frozen by others.

    Raises:
        OSError: its reader has ended.
    """
    poll, left = select.poll(), memoryview(content)
    poll.register(pipe, select.POLLOUT)
    while left and poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
        left = left[os.write(pipe, left) :]


def _read_line(pipe: int, deadline_s: float) -> bytes:
    """Read a line; what there is of it, when its writer ends or says no more until then."""
    poll, found = select.poll(), b""
    poll.register(pipe, select.POLLIN)
    while not found.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
            return found
        part = os.read(pipe, _BYTES)
        if not part:
            return found
        found += part
    return found


def _fault(said: str, limits: Limits) -> ScriptFault:
    """Word what the engine said: its message and the first place in the script."""
    lines = [line.strip() for line in said.splitlines() if line.strip() not in ("", "undefined")]
    limit = _LIMITS.get(lines[0] if lines else "null", "")
    if limit == "time":
        return ScriptFault(f"it needs more than {limits.time_ms} ms", limit)
    if limit == "memory":
        return ScriptFault(f"it needs more than {limits.memory_kib} KiB of memory", limit)
    place = next((line.removeprefix("at ") for line in lines[1:] if "<input>:" in line), "")
    message = f"{lines[0]} ({place})" if place else lines[0]
    return ScriptFault(message.replace("<input>", "script").encode(errors="replace").decode()[:MAX_MESSAGE_CHARS])
