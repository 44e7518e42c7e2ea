"""What devices that listen are told unasked: commands as RPC, changes of their wishes as shared attributes.

Two questions stay open at the registry for all of them, whatever their number: for commands and for twins that changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from chassis import logs
from ingest.thingsboard.registry import Registry
from wire.errors import HeadwaterError

log = logs.get(__name__)
AT_ONCE = 500  # devices of one question


class Listener(Protocol):
    """A connection over which a device is told something: its own, or its gateway's, which calls it `name`.

    Both give False where it does not listen to that any more.
    """

    def command(self, name: str, command: Mapping[str, Any], heard: Callable[[], None]) -> bool: ...
    def wish(self, name: str, news: Mapping[str, Any]) -> bool: ...


class _Ear(NamedTuple):
    listener: Listener
    name: str  # empty: the device itself


class Downlink:
    """Who listens, by device; used from the event loop only. `run` ends when it is cancelled."""

    def __init__(self, registry: Registry, retry_s: float) -> None:
        self._registry = registry
        self._retry_s = retry_s
        # Of each device the newest comes last, and is told; those of other connections before it may outlive it.
        self._commands: dict[str, list[_Ear]] = {}
        self._wishes: dict[str, list[_Ear]] = {}
        self._known: dict[str, dict[str, Any]] = {}  # desired parts as the devices know them
        self._early: dict[str, dict[str, Any]] = {}  # those that changed before they were known
        self._routes: dict[str, bool] = {}  # to be told to the registry: whose commands come here, and whose not
        self._unknown: set[str] = set()  # devices whose desired part is to be read
        self._work = asyncio.Event()
        self._follows = asyncio.Event()  # changes of twins are noticed from here on
        self._since: Any = None  # the place up to which they were

    def want_commands(self, device: str, listener: Listener, name: str = "") -> None:
        """Have a device's commands come here."""
        ears = self._commands.setdefault(device, [])
        if (listener, name) not in ears:
            ears.append(_Ear(listener, name))
            self._route(device, is_here=True)

    def want_wishes(self, device: str, listener: Listener, name: str = "") -> None:
        """Have the changes of a device's desired part come here, from now on."""
        ears = self._wishes.setdefault(device, [])
        if (listener, name) not in ears:
            ears.append(_Ear(listener, name))
        if device not in self._known:
            self._unknown.add(device)
            self._work.set()

    def leave(self, device: str, listener: Listener) -> None:
        """Forget a device that this connection does not hear for any more."""
        if _drop(self._commands, device, listener):
            self._route(device, is_here=False)
        if _drop(self._wishes, device, listener):
            for held in (self._known, self._early):
                held.pop(device, None)
            self._unknown.discard(device)

    async def run(self) -> None:
        """Work until cancelled."""
        await asyncio.gather(*(self._keep(each) for each in (self._tell, self._hand_out, self._follow)))

    async def _keep(self, work: Callable[[], Any]) -> None:
        while True:
            try:
                await work()
            except HeadwaterError as error:  # the registry is away
                log.info("registry_away", code=error.code, detail=error.detail)
                await asyncio.sleep(self._retry_s)

    def _route(self, device: str, *, is_here: bool) -> None:
        self._routes[device] = is_here
        self._work.set()

    async def _tell(self) -> None:
        """Tell the registry who came and went, and read what those who came are to be."""
        await self._work.wait()
        for is_here in (True, False):
            await self._tell_routes(is_here=is_here)
        await self._follows.wait()  # else a change between reading and following is missed
        while some := list(self._unknown)[:AT_ONCE]:
            for twin in await asyncio.to_thread(self._registry.wishes, some):
                self._begin(twin)
            self._unknown.difference_update(some)
        if not self._routes and not self._unknown:
            self._work.clear()

    async def _tell_routes(self, *, is_here: bool) -> None:
        while some := [device for device, there in self._routes.items() if there == is_here][:AT_ONCE]:
            await asyncio.to_thread(partial(self._registry.route, some, is_here=is_here))
            told = [device for device in some if self._routes[device] == is_here]  # of others there is news
            for device in told:
                del self._routes[device]

    async def _hand_out(self) -> None:
        for command in await asyncio.to_thread(self._registry.commands):
            heard, ears = partial(self._note_sent, command), self._commands.get(command["device"], [])
            if not any(ear.listener.command(ear.name, command, heard) for ear in reversed(ears)):
                self._commands.pop(command["device"], None)
                self._route(command["device"], is_here=False)  # it does not listen: other ways are open to it again

    def _note_sent(self, command: Mapping[str, Any]) -> None:
        _in_background(asyncio.to_thread(self._registry.tell, sent(command)))

    async def _follow(self) -> None:
        if self._since is None:
            _, self._since = await asyncio.to_thread(self._registry.changed_wishes, None, 0)
        self._follows.set()
        while True:
            twins, self._since = await asyncio.to_thread(self._registry.changed_wishes, self._since)
            for twin in twins:
                self._take(twin)

    def _begin(self, twin: dict[str, Any]) -> None:
        device = twin["device"]
        if device not in self._wishes or device in self._known:
            return
        self._known[device] = twin
        early = self._early.pop(device, None)
        if early is not None and early["version"] > twin["version"]:
            self._take(early)

    def _take(self, twin: dict[str, Any]) -> None:
        device = twin["device"]
        ears, before = self._wishes.get(device), self._known.get(device)
        if ears is None:
            return
        if before is None:
            self._early[device] = twin
            return
        if before["version"] == twin["version"]:  # what changed is what it reports
            return
        self._known[device] = twin
        if news := _news(before["desired"], twin["desired"]):
            any(ear.listener.wish(ear.name, news) for ear in reversed(ears))


def _drop(ears: dict[str, list[_Ear]], device: str, listener: Listener) -> bool:
    """Drop what a connection hears for a device; tell whether it was the last that did."""
    if device not in ears:
        return False
    left = [ear for ear in ears.pop(device) if ear.listener is not listener]
    if left:
        ears[device] = left
    return not left


def sent(command: Mapping[str, Any]) -> dict[str, Any]:
    """Give the report that a command has left; a second one of the same attempt changes nothing."""
    return {"id": command["id"], "device": command["device"], "is_sent": True, "attempt": command["attempt"]}


def _news(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is new, and the names of what is gone, as ThingsBoard words them."""
    news = {key: value for key, value in after.items() if key not in before or before[key] != value}
    gone = sorted(before.keys() - after.keys())
    return news | ({"deleted": gone} if gone else {})


_background: set[asyncio.Task[Any]] = set()


def _in_background(work: Any) -> None:
    task = asyncio.ensure_future(work)
    _background.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(_finished)


def _finished(task: asyncio.Task[Any]) -> None:
    _background.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.info("report_lost", error=str(task.exception()))  # the command is given out again, and so told again
