"""One supervised process: its specification, its life from spawn to end, its output, its readiness."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from compose import procfs

READY_POLL_S = 0.03
PROBE_TIMEOUT_S = 2.0
SILENT_PROBES = 12  # in a row without any answer, spread over a process's patience: counted, so that a machine which
# slept does not blame its processes
KILL_S = 1.0  # SIGKILL needs microseconds, unless the process hangs in the kernel
CHUNK_BYTES = 64 * 1024
LINE_BYTES = 16 * 1024  # a longer line of output is cut into pieces
LAST_WORDS, LAST_CHARS = 8, 200
OK = b"200"
LISTEN_FD = "HEADWATER_LISTEN_FD"  # tells a process which of its descriptors is its listening socket
BACKLOG = 4_096  # as that of the services that listen for themselves
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)

Output = Callable[[str, str], None]  # process name, line


@dataclass(slots=True, frozen=True)
class Spec:
    """What to start, when, and how to see that it is ready."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)  # all of it, not additions
    cwd: Path | None = None
    ready: str = ""  # http://host:port/path that answers 200, tcp://host:port that accepts, or "" = once it runs
    after: tuple[str, ...] = ()  # names that must be ready first
    stage: int = 0  # higher stages are stopped first
    patience_s: float = (
        60.0  # a process that was ready and then answers nothing for so long is ended; tcp:// always does
    )
    is_vital: bool = True  # the start has failed when this does not come up
    listen: str = ""  # host:port on which the supervisor listens for it: it starts when somebody connects
    filter: Callable[[str], str | None] = lambda line: line  # what of its output is shown
    tend: Callable[[int], None] | None = None  # called with the pid each second while it is ready; must not block


class Child:
    """A process under supervision; used from the event loop only."""

    def __init__(self, spec: Spec, output: Output) -> None:
        self.spec = spec
        self.restarts = 0
        self.start_ticks = 0
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self.process: subprocess.Popen[bytes] | None = None
        self.ended: asyncio.Future[int] | None = None
        self._output = output
        self._partial = b""
        self._listener: socket.socket | None = None

    def listen(self) -> None:
        """Open the socket that the process will be given, where its specification says so. Raises OSError."""
        if self.spec.listen:
            host, _, port = self.spec.listen.rpartition(":")
            self._listener = socket.create_server((host, int(port)), backlog=BACKLOG)

    async def called(self) -> None:
        """Wait until somebody has connected; the connection waits in the socket for the process."""
        assert self._listener is not None
        loop, seen = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._listener, seen.set)
        try:
            await seen.wait()
        finally:
            loop.remove_reader(self._listener)

    def close(self) -> None:
        """Close the socket: nobody will start any more."""
        if self._listener is not None:
            self._listener.close()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self.process.pid if self.process and self.ended and not self.ended.done() else None

    def spawn(self) -> None:
        """Start the process as leader of a session of its own, bound to end when this process ends."""
        loop = asyncio.get_running_loop()
        handed = () if self._listener is None else (self._listener.fileno(),)
        self.process = subprocess.Popen(
            list(self.spec.argv),
            env=dict(self.spec.env) | ({LISTEN_FD: str(handed[0])} if handed else {}),
            pass_fds=handed,
            cwd=self.spec.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # ctrl-C in the terminal reaches the supervisor only
            preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - two system calls, no lock, no allocation that matters
        )
        self.ended = loop.create_future()
        seen = procfs.look(self.process.pid)
        self.start_ticks = seen.start_ticks if seen else 0
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, self._read, descriptor)

    def reap(self) -> None:
        """Notice the end of the process; called at SIGCHLD."""
        if self.process is None or self.ended is None or self.ended.done():
            return
        code = self.process.poll()
        if code is not None:
            self.ended.set_result(code)

    async def wait_ready(self) -> None:
        """Wait until the process answers its readiness probe."""
        while not await is_ready(self.spec.ready):  # noqa: ASYNC110 - another process cannot set an event here
            await asyncio.sleep(READY_POLL_S)

    async def wait_silent(self) -> None:
        """Wait until the process, once ready, answers nothing any more; a refusal is an answer."""
        probe = self.spec.ready.replace("/readyz", "/livez")
        step_s = self.spec.patience_s / SILENT_PROBES / 2
        missed = 0
        while missed < SILENT_PROBES:
            await asyncio.sleep(step_s)
            missed = 0 if await _status(probe, step_s) else missed + 1

    def kill(self) -> None:
        """End the process at once."""
        self._signal_leader(signal.SIGKILL)

    async def stop(self, grace_s: float) -> None:
        """End the process and all it started: SIGTERM, and SIGKILL after the grace."""
        if self.process is None or self.ended is None:
            return
        self._signal_leader(signal.SIGTERM)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), grace_s)
        await self.clear(0.2 if self.ended.done() else 0.0)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), 1)
        self._close_output()

    async def clear(self, grace_s: float) -> None:
        """End what the process left of its session (workers of a killed master still hold its port)."""
        if self.process is None:
            return
        pid = self.process.pid
        _signal_group(pid, signal.SIGTERM)
        await self._wait_empty(grace_s)
        _signal_group(pid, signal.SIGKILL)
        await self._wait_empty(KILL_S)
        if self.ended is not None and self.ended.done():
            self._close_output()

    def describe_end(self) -> str:
        """Say how the process ended."""
        code = self.ended.result() if self.ended and self.ended.done() else None
        if code is None:
            return "runs"
        if code < 0:
            with suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
        last = f" ({self.last_words[-1][:LAST_CHARS]})" if self.last_words else ""
        return f"ended with exit code {code}{last}"

    async def _wait_empty(self, limit_s: float) -> None:
        """Wait until nothing of the session runs: what is dead and not reaped by its new parent holds no port."""
        assert self.process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while procfs.members(self.process.pid, self.start_ticks) and loop.time() < deadline:  # noqa: ASYNC110 - nobody tells of grandchildren
            await asyncio.sleep(0.01)

    def _signal_leader(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _read(self, descriptor: int) -> None:
        try:
            chunk = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._close_output()
            return
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > LINE_BYTES:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        self.last_words.append(text)
        shown = self.spec.filter(text)
        if shown is not None:
            self._output(self.spec.name, shown)

    def _close_output(self) -> None:
        if self.process is None or self.process.stdout is None or self.process.stdout.closed:
            return
        asyncio.get_running_loop().remove_reader(self.process.stdout.fileno())
        self.process.stdout.close()
        if self._partial:
            self._take(self._partial)
            self._partial = b""


async def is_ready(probe: str) -> bool:
    """Ask a readiness probe once."""
    return not probe or await _status(probe, PROBE_TIMEOUT_S) == OK


async def _status(probe: str, limit_s: float) -> bytes:
    """Give the HTTP status that a probe is answered with; b"" for no answer."""
    try:
        async with asyncio.timeout(limit_s):  # wait_for of Python 3.11 forgets a cancel that comes with the answer
            return await _ask(probe)
    except (TimeoutError, OSError, ValueError):
        return b""


async def _ask(probe: str) -> bytes:
    where = urlsplit(probe)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        if where.scheme == "tcp":
            return OK
        writer.write(f"GET {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.readline()
        return b"".join(answer.split(b" ", 2)[1:2])
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _end_with(parent: int) -> Callable[[], None]:
    """Make the child get SIGTERM when the supervisor dies in whatever way (prctl(2), PR_SET_PDEATHSIG)."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return prepare


def python(*arguments: str) -> list[str]:
    """Give the command line of this project's own Python."""
    return [sys.executable, *arguments]
