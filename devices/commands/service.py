"""The verbs of commands: send, look, wait, cancel, hand out, answer. Knows no HTTP and no SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import orjson

from chassis import parking
from chassis.metrics import Counter
from devices.commands import state as life
from devices.commands.state import Claimed, Command, CommandFilter, Form, HandedOver, Reply, Wanted, unknown
from devices.control.news import ANY, Bell
from devices.metrics import COMMANDS_ENDED
from devices.query.tree import EVERY_DEVICE, Node
from devices.rows import Who
from wire import clock
from wire.clock import NS_PER_S
from wire.control import CommandCreate, CommandDown, CommandView, Withdrawn
from wire.devices import DeviceIdentity
from wire.errors import HeadwaterError, NotFound
from wire.topics import is_device_id

SENT = Counter("headwater_commands_sent", "Commands handed out, by the way", ["via"])
AT_ONCE = 1_000  # cancelled in one transaction: others wait for it
LEASE_S = 30.0  # how long a protocol's service has to report what it claimed


class Commands(Protocol):
    """Where commands are kept; see `devices.commands.store.CommandStore`."""

    def add(self, tenant: str, wanted: Sequence[Wanted], who: Who) -> list[Command | HeadwaterError]: ...
    def find(self, tenant: str, command_id: str) -> Command: ...
    def search(self, wanted: CommandFilter) -> list[Command]: ...
    def open_of_job(self, tenant: str, job: str, limit: int, among: Node = EVERY_DEVICE) -> list[str]: ...
    def change(
        self, ids: Sequence[str], change: Callable[[Command, int], Command], who: Who | None = None
    ) -> dict[str, Command]: ...
    def take(self, tenant: str, devices: Sequence[str], via: str, at_most: int | None) -> list[Command]: ...
    def claim(self, protocol: str, limit: int, lease_ns: int) -> list[Claimed]: ...
    def route(self, protocol: str, devices: Sequence[str], *, ends: bool = False) -> int: ...


class CommandVerbs:
    """Commands as operators, devices and protocols use them; thread-safe."""

    def __init__(self, store: Commands, bell: Bell) -> None:
        self._store = store
        self._bell = bell

    def send(self, tenant: str, wanted: Wanted, who: Who) -> Command:
        """Queue a command; one of a known idempotency key is the one of before.

        Raises:
            NotFound: no such device, or it is retired.
            Conflict: too many wait for it, or the key was used for another command.
        """
        if not is_device_id(wanted.device):
            raise NotFound(f"no device {wanted.device[:80]!r}", code="device_not_found")
        outcome = self._store.add(tenant, [wanted], who)[0]
        self._bell.ring()
        if isinstance(outcome, HeadwaterError):
            raise outcome
        return outcome

    def send_all(self, tenant: str, wanted: Sequence[Wanted], who: Who) -> list[Command | HeadwaterError]:
        """Queue commands for many devices, in one transaction; each has its own outcome."""
        outcomes = self._store.add(tenant, wanted, who)
        self._bell.ring()
        return outcomes

    def find(self, tenant: str, command_id: str) -> Command:
        """Give a command.

        Raises:
            NotFound: the tenant has no such command.
        """
        return self._store.find(tenant, _plain(command_id))

    def search(self, wanted: CommandFilter) -> list[Command]:
        """List commands, newest first."""
        return self._store.search(wanted)

    def await_end(self, tenant: str, command_id: str, wait_s: float) -> Command:
        """Give a command when it has ended, or as it is when the time is over. Raises as `find`.

        One that goes with its device meanwhile has ended: it is cancelled.
        """
        found = parking.aside(self.find, tenant, command_id)

        def read() -> Command:
            try:
                return self._store.find(tenant, found.id)
            except NotFound:
                return life.withdrawn(found, clock.now_ns(), "device_gone")

        def look() -> Command | None:
            command = parking.aside(read)
            return None if command.active else command

        return self._bell.wait(found.device, look, wait_s) or parking.aside(read)

    def cancel(self, tenant: str, command_id: str, who: Who) -> Command:
        """End a command that nobody wants any more; one that has ended stays as it is. Raises as `find`."""
        found = self.find(tenant, command_id)
        return self._change([found.id], life.cancelled, who)[found.id]

    def cancel_of_job(self, tenant: str, job: str, who: Who, among: Node = EVERY_DEVICE) -> Withdrawn:
        """End commands to some devices that a bulk action sent and that have not ended; at most AT_ONCE."""
        ids = self._store.open_of_job(tenant, job, AT_ONCE + 1, among)
        ended = self._change(ids[:AT_ONCE], life.cancelled, who)
        return Withdrawn(cancelled=len(ended), open=len(ids) > AT_ONCE)

    def expire(self, ids: Sequence[str]) -> None:
        """End those whose deadline is over."""
        self._change(ids, life.expired)

    def note_sent(self, ids: Sequence[str], via: str) -> None:
        """Note that commands were handed out; by the protocol that worded them, where one did."""
        for command in self._change(ids, partial(life.sent, via=via)).values():
            SENT.labels(command.via or via).inc()

    def publish(self, given: Mapping[str, tuple[str, int, Form]]) -> list[str]:
        """Have the broker told what a protocol's service worded, by command: device, attempt and form.

        Returns:
            The ids of those that there are not.
        """

        def judge(command: Command, now_ns: int) -> Command:
            device, attempt, form = given[command.id]
            is_meant = (device, attempt) == (command.device, command.tries + 1)
            return life.formed(command, now_ns, form) if is_meant else command

        found = self._change([key for key in given if _plain(key)], judge)
        return [key for key, (device, _, _) in given.items() if key not in found or found[key].device != device]

    def note_handed_over(self, given: Sequence[HandedOver], via: str) -> list[str]:
        """Note what a protocol's service sent; a report that is repeated changes nothing. Give the unknown ids."""
        by_id = {_plain(each.id): each for each in given}

        def judge(command: Command, now_ns: int) -> Command:
            told = by_id[command.id]
            if told.device != command.device or told.attempt not in (None, command.tries + 1):
                return command
            SENT.labels(via).inc()
            return life.sent(command, now_ns, via, told.retry_s)

        found = self._change(list(by_id), judge)
        owners = {key: command.device for key, command in found.items()}
        return [each.id for each in given if owners.get(_plain(each.id)) != each.device]

    def note_unheard(self, ids: Sequence[str]) -> None:
        """Note that nobody listened."""
        self._change(ids, life.unheard)

    def answer_all(self, replies: Sequence[tuple[str, str, Reply]]) -> list[Command | HeadwaterError]:
        """Take replies (device, command, reply) in their order; for each give the command, or why it was refused."""
        by_id: dict[str, list[tuple[str, Reply]]] = {}
        for device, command_id, reply in replies:
            by_id.setdefault(_plain(command_id), []).append((device, reply))

        def judge(command: Command, now_ns: int) -> Command:
            for device, reply in by_id[command.id]:
                command = life.answered(command, reply, now_ns) if device == command.device else command
            return command

        found = self._change(list(by_id), judge)
        commands = [(device, found.get(_plain(key)), key) for device, key, _ in replies]
        return [command if command and command.device == device else unknown(key) for device, command, key in commands]

    def await_work(self, device_id: str, take: Callable[[], list[Command]], wait_s: float) -> list[Command]:
        """Give what a device has to do, as soon as there is something; nothing when the time is over.

        `take` hands it out (`hand_out`), after it has checked the device's credential: one that is disabled meanwhile
        is sent away at once.
        """
        return self._bell.wait(device_id, lambda: take() or None, wait_s, is_own=True) or []

    def hand_out(
        self, devices: Sequence[DeviceIdentity], via: str = "http", at_most: int | None = None
    ) -> list[list[Command]]:
        """Hand out to devices what each has to do now; in one transaction for those of one tenant.

        Args:
            devices: those that ask.
            via: how they get it.
            at_most: commands of all of them; None: as many as may be on their way.
        """
        mine: dict[str, set[str]] = {}
        for device in devices:
            mine.setdefault(device.tenant, set()).add(device.id)
        found: dict[str, list[Command]] = {}
        for tenant, ids in mine.items():
            for command in self._store.take(tenant, sorted(ids), via, at_most):
                found.setdefault(command.device, []).append(command)
        SENT.labels(via).inc(sum(map(len, found.values())))
        return [found.pop(device.id, []) for device in devices]  # of two requests of one device the first has them

    def route(self, protocol: str, devices: Sequence[str], *, ends: bool = False) -> int:
        """Let a protocol's service send the commands of these devices, or (`ends`) no longer; give how many exist."""
        routed = self._store.route(protocol, devices, ends=ends)
        self._bell.ring()  # what waits for them can go
        return routed

    def claim(self, protocol: str, limit: int, wait_s: float) -> list[Claimed]:
        """Give a protocol's service what it has to send, as soon as there is something."""
        lease_ns = int(LEASE_S * NS_PER_S)

        def look() -> list[Claimed] | None:
            return parking.aside(self._store.claim, protocol, limit, lease_ns) or None

        return self._bell.wait(ANY, look, wait_s) or []

    def _change(
        self, ids: Sequence[str], change: Callable[[Command, int], Command], who: Who | None = None
    ) -> dict[str, Command]:
        ended: list[str] = []

        def noting(command: Command, now_ns: int) -> Command:
            new = change(command, now_ns)
            if command.active and not new.active:
                ended.append(new.state)
            return new

        found = self._store.change(ids, noting, who) if ids else {}
        for name in ended:
            COMMANDS_ENDED.labels(name).inc()
        self._bell.ring()
        return found


def to_wanted(device: str, given: CommandCreate, key: str | None = None, job: str | None = None) -> Wanted:
    """Make a wanted command of a request's body.

    Raises:
        HeadwaterError: its params are too large, too deep, or cannot be written as JSON.
    """
    return Wanted(
        device,
        given.name,
        life.dump(given.params, "params"),
        given.qos,
        given.deadline_s,
        given.retries,
        given.idempotency_key or key,
        job,
    )


def show(command: Command) -> CommandView:
    """Render a command for operators."""
    same = ("id", "device", "name", "state", "tries", "qos", "via", "error", "actor", "job", "idempotency_key")
    times = ("created", "deadline", "sent", "delivered", "ended")
    values: dict[str, Any] = {name: getattr(command, name) for name in same}
    values |= {name: getattr(command, f"{name}_ns") for name in times}
    values["params"] = orjson.loads(command.params)
    values["result"] = None if command.result is None else orjson.loads(command.result)
    return CommandView(**values)


def show_down(command: Command) -> CommandDown:
    """Render a command for its device."""
    return CommandDown(**life.payload(command))


def _plain(command_id: str) -> str:
    return command_id if command_id.isascii() and command_id.isalnum() else ""
