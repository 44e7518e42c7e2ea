"""The local supervisor: starts processes in order, waits for readiness, restarts what dies, stops all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import groupby
from typing import Any

from compose import procfs, state
from compose.child import Child, Spec
from compose.console import Console
from compose.folder import Folder

# What lived for a while is started again at once. Recovery within 5 s is promised also for what is killed again and
# again; a crash loop then costs a third of a core.
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 0.2, 2.0, 5.0
START_TRIES = 4  # a vital process that ends this often before it was ready once: the start has failed
START_LIMIT_S = 90.0
PATIENCE_S = 10.0  # then say who is being waited for
STAGE_GRACE_S = 3.0
STOP_LIMIT_S = 8.5  # of all stages together; then everything left is killed
TEND_S = 1.0


class Supervisor:
    """Keeper of processes. `run` is the whole life; everything else serves it."""

    def __init__(self, specs: Iterable[Spec], folder: Folder, shown: state.State, console: Console) -> None:
        self._folder = folder
        self._state = shown
        self._console = console
        self._children = {spec.name: Child(spec, self._on_output) for spec in specs}
        self._ready = {name: asyncio.Event() for name in self._children}
        self._records = {name: state.ProcessRecord(name=name) for name in self._children}
        self._state.processes = list(self._records.values())
        self._stopping = asyncio.Event()
        self._hurry = False
        self.failure: str | None = None

    async def run(self, on_ready: Callable[[float], None]) -> int:
        """Start all, call `on_ready` with the seconds it took, keep all until a signal, stop all; give an exit code."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it stays ignored
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        if not self._listen():
            return 1
        keepers = [asyncio.create_task(self._keep(child), name=name) for name, child in self._children.items()]
        for keeper in keepers:
            keeper.add_done_callback(self._on_keeper_end)
        try:
            if await self._all_ready():
                seconds = time.monotonic() - began
                self._state.ready, self._state.ready_s = True, round(seconds, 3)
                self._save()
                on_ready(seconds)
                await self._stopping.wait()
        finally:
            self._stopping.set()
            await self._stop_all()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            for child in self._children.values():
                child.close()
            self._state.ready = False
            self._save()
        return 1 if self.failure else 0

    def stop(self) -> None:
        """Begin to stop; a second call stops without grace."""
        self._hurry = self._stopping.is_set()
        self._stopping.set()

    def _listen(self) -> bool:
        for name, child in self._children.items():
            try:
                child.listen()
            except OSError as error:
                self.failure = f"{name} cannot listen on {child.spec.listen}: {os.strerror(error.errno or 0)}"
                return False
        return True

    def _on_signal(self) -> None:
        if not self._stopping.is_set():
            self._console.say("stopping")
        self.stop()

    def _reap(self) -> None:
        for child in self._children.values():
            child.reap()

    def _on_keeper_end(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._fail(f"{keeper.get_name()} cannot be started: {error}")

    def _on_output(self, name: str, line: str) -> None:
        self._console.line(name, line)

    async def _all_ready(self) -> bool:
        vital = [name for name, child in self._children.items() if child.spec.is_vital]
        waiting = asyncio.gather(*(self._ready[name].wait() for name in vital))
        began = time.monotonic()
        try:
            while not await self._first_of(waiting, PATIENCE_S):
                missing = ", ".join(name for name in vital if not self._ready[name].is_set())
                if self._stopping.is_set() or self.failure:
                    return False
                if time.monotonic() - began > START_LIMIT_S:
                    self._fail(f"not ready after {START_LIMIT_S:.0f} s: {missing}")
                    return False
                self._console.say(f"still waiting for: {missing}")
            return not self._stopping.is_set()
        finally:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting

    async def _first_of(self, waiting: asyncio.Future[Any], limit_s: float) -> bool:
        """Wait for readiness, a stop, or the limit; tell whether everything is ready."""
        stop: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((waiting, stop), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        return waiting.done() and not waiting.cancelled()

    async def _keep(self, child: Child) -> None:
        name = child.spec.name
        for other in child.spec.after:
            await self._ready[other].wait()
        if child.spec.listen:
            await self._be_called(child)
        pause = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._live(child)
            if self._stopping.is_set():
                return
            await child.clear(0.0)  # workers without their master hold its port, and have nothing that may not be lost
            if time.monotonic() - began > STEADY_S:
                pause = 0.0
            child.restarts += 1
            if self._gives_up(child):
                return
            self._console.say(f"{name} {child.describe_end()}; starting it again{_after(pause)}", level="warning")
            self._note(child, "restarting")
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause or FIRST_PAUSE_S, LONGEST_PAUSE_S)

    async def _be_called(self, child: Child) -> None:
        """Wait for the first connection; until then it costs nothing, and whoever needs it is not kept waiting."""
        self._ready[child.spec.name].set()
        self._note(child, "idle")
        await child.called()

    async def _live(self, child: Child) -> None:
        """Run the process once, from spawn to end."""
        child.spawn()
        self._note(child, "starting")
        tasks = [asyncio.create_task(self._watch(child)), asyncio.create_task(self._tend(child))]
        assert child.ended is not None
        await child.ended
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self, child: Child) -> None:
        await child.wait_ready()
        if child.restarts and self._ready[child.spec.name].is_set():
            self._console.say(f"{child.spec.name} is back")
        self._ready[child.spec.name].set()
        self._note(child, "running")
        if not child.spec.ready:
            return
        await child.wait_silent()
        self._console.say(f"{child.spec.name} answers nothing; ending it", level="warning")
        child.kill()

    async def _tend(self, child: Child) -> None:
        while child.spec.tend is not None:
            await asyncio.sleep(TEND_S)
            if child.pid is not None and self._records[child.spec.name].state == "running":
                with suppress(OSError):  # a full disk, or a process that has just ended
                    child.spec.tend(child.pid)

    def _gives_up(self, child: Child) -> bool:
        is_hopeless = child.spec.is_vital and not self._ready[child.spec.name].is_set()
        if is_hopeless and child.restarts >= START_TRIES:
            self._note(child, "stopped")
            self._fail(f"{child.spec.name} does not start: it {child.describe_end()} {child.restarts} times")
            return True
        return False

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._stopping.set()

    async def _stop_all(self) -> None:
        """Stop stage by stage, the highest first; within a stage all at once."""
        end = time.monotonic() + STOP_LIMIT_S
        children = sorted(self._children.values(), key=lambda child: -child.spec.stage)
        for _, group in groupby(children, key=lambda child: child.spec.stage):
            left = max(0.0, end - time.monotonic())
            grace = 0.0 if self._hurry else min(STAGE_GRACE_S, left)
            await _together(self._end(child, grace) for child in group)

    async def _end(self, child: Child, grace_s: float) -> None:
        await child.stop(grace_s)
        self._note(child, "stopped")

    def _note(self, child: Child, now: state.ProcessState) -> None:
        record = self._records[child.spec.name]
        record.pid, record.state, record.restarts = child.pid, now, child.restarts
        record.start_ticks = child.start_ticks if child.pid else 0
        record.ready_url = child.spec.ready
        with suppress(OSError):  # a full disk must not end the supervisor
            state.write_pid(self._folder, record.name, record.pid)
        self._save()

    def _save(self) -> None:
        with suppress(OSError):
            state.write(self._folder, self._state)


def _after(pause_s: float) -> str:
    return f" in {pause_s:.1f} s" if pause_s else ""


async def _together(work: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*work)


def clear_leftovers(folder: Folder) -> int:
    """End what a killed supervisor left running on this folder; give how many processes that were."""
    last = state.read(folder)
    if last is None or last.boot_id != procfs.boot_id() or last.supervisor_pid == os.getpid():
        return 0
    sessions = [(record.pid, record.start_ticks) for record in last.processes if record.pid and record.start_ticks]
    return procfs.end(sessions, STAGE_GRACE_S)
