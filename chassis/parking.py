"""Waiting inside a request: on an event loop the request is parked and the loop goes on, elsewhere the thread blocks.

The event loop is `chassis.loop_worker`'s; it runs each request as a `Request` greenlet. What may block for long (disk,
other services) goes through `aside` or a `waiter`; everything else of a request runs straight through.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

from greenlet import getcurrent, greenlet

QUICK = "headwater.quick"  # in app.extensions: what runs on a loop if short: prefixes of paths of posts, or `GET /path`
IS_WHOLE = "headwater.is_whole"  # in a WSGI environ: the body is in memory, with nothing unread behind it

P = ParamSpec("P")
T = TypeVar("T")


class Loop(Protocol):
    """The event loop that runs requests."""

    def park(self, waiter: LoopWaiter, timeout_s: float | None) -> None:
        """Note a parked request; resume it when it is woken or the time is over. In the loop's thread."""
        ...

    def wake(self, waiter: LoopWaiter) -> None:
        """Resume it soon. From any thread."""
        ...

    def watch(self, descriptor: int, events: int, waiter: LoopWaiter) -> None:
        """Set a waiter once, when a descriptor is ready for `selectors` events. In the loop's thread."""
        ...

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread of the pool for what blocks."""
        ...

    def soon(self, work: Callable[[], None]) -> None:
        """Run `work` in the loop's thread, when all that was ready has had its turn. From any thread."""
        ...


class Request(greenlet):
    """A request that runs on an event loop."""

    def __init__(self, run: Callable[..., None], loop: Loop) -> None:
        super().__init__(run)
        self.loop = loop


class Waiter(Protocol):
    """Waits once, for one `set`, as threading.Event does."""

    def set(self) -> None:
        """Let it go on. From any thread."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until set; tell whether it was."""
        ...


class LoopWaiter:
    """Parks the request that made it."""

    __slots__ = ("_is_set", "_is_waiting", "_request")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._is_set = self._is_waiting = False

    def set(self) -> None:
        """See Waiter."""
        self._is_set = True
        self._request.loop.wake(self)

    def wait(self, timeout: float | None = None) -> bool:
        """See Waiter. In the request's own greenlet."""
        if not self._is_set:
            self._is_waiting = True
            self._request.loop.park(self, timeout)
            assert self._request.parent is not None
            self._request.parent.switch()
        return self._is_set

    def resume(self) -> None:
        """Go on with the request, unless it goes on already. In the loop's thread, outside of any request."""
        if self._is_waiting:
            self._is_waiting = False
            self._request.switch()


def loop() -> Loop | None:
    """Give the event loop that this runs on, where nothing may block; None elsewhere."""
    request = getcurrent()
    return request.loop if isinstance(request, Request) else None


def waiter() -> Waiter:
    """Make something to wait for; `wait` belongs to the request or thread that made it."""
    request = getcurrent()
    return LoopWaiter(request) if isinstance(request, Request) else threading.Event()


class Places:
    """A bounded number of places, given in the order of asking; who waits for one holds up no event loop."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._free = count
        self._waiting: deque[Waiter] = deque()

    @contextmanager
    def take(self, timeout_s: float | None = None) -> Iterator[None]:
        """Have a place.

        Raises:
            TimeoutError: none came free in time.
        """
        mine: Waiter | None = None
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                mine = waiter()
                self._waiting.append(mine)
        if mine is not None and not mine.wait(timeout_s):
            self._leave(mine)
        try:
            yield
        finally:
            self._give()

    def _leave(self, mine: Waiter) -> None:
        with self._lock:
            if mine in self._waiting:  # else it was given one at the last moment
                self._waiting.remove(mine)
                raise TimeoutError

    def _give(self) -> None:
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            self._free += following is None
        if following is not None:
            following.set()


def until_ready(descriptor: int, events: int) -> None:
    """Wait until a descriptor is ready for `selectors` events; on an event loop only."""
    request = getcurrent()
    assert isinstance(request, Request)
    waiter = LoopWaiter(request)
    request.loop.watch(descriptor, events, waiter)
    waiter.wait()


def aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what may block: in a thread when this runs on an event loop, else here.

    No lock may be held: another request of the same loop would wait for it in vain.
    """
    request = getcurrent()
    if not isinstance(request, Request):
        return call(*args, **kwargs)
    done, outcome = LoopWaiter(request), Future[Any]()

    def work() -> None:
        try:
            outcome.set_result(call(*args, **kwargs))
        except BaseException as error:  # whatever it is, it belongs to the request
            outcome.set_exception(error)
        done.set()

    request.loop.start(work)
    done.wait()
    result: T = outcome.result()
    return result
