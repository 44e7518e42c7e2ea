"""Commands over MQTT: sent to devices that are connected, their replies taken. Knows no client library."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson

from devices.commands import state as life
from devices.commands.service import CommandVerbs
from devices.commands.state import Command, Reply
from devices.commands.store import Due
from devices.control.traffic import Inbound, Outbound, Receipt, Way
from wire import clock, topics
from wire.clock import NS_PER_S
from wire.errors import BadRequest, HeadwaterError

AT_ONCE = 500
OVERDUE_S = 0.5  # how often deadlines are looked at
MISSED_S = 30.0  # how often those are looked for whose device is there though its coming was missed
_REPLY = "/reply"


class Queue(Protocol):
    """What is to be sent; see `devices.commands.store.CommandQueue`."""

    def due(self, now_ns: int, limit: int) -> list[Due]: ...
    def shelve(self, commands: Sequence[Command]) -> None: ...
    def wake_reachable(self) -> None: ...
    def overdue(self, now_ns: int, limit: int) -> list[str]: ...


class CommandTraffic:
    """A Traffic of commands; in the thread of the connection."""

    filters: Sequence[str] = (topics.COMMAND_REPLY, topics.CHILD_COMMAND_REPLY)
    found: Sequence[str] = ()
    channels: tuple[str, ...] = ("commands",)

    def __init__(self, commands: CommandVerbs, queue: Queue) -> None:
        """Prepare."""
        self._commands = commands
        self._queue = queue
        self._on_way: set[str] = set()
        self._missed_at_s = 0.0

    def begin(self, retained: Mapping[Way, bytes]) -> None:
        """See Traffic: what was on its way may not have arrived."""
        del retained
        self._on_way.clear()

    def take(self, messages: Sequence[Inbound]) -> list[tuple[Inbound, HeadwaterError]]:
        """See Traffic."""
        refused: list[tuple[Inbound, HeadwaterError]] = []
        replies: list[tuple[str, str, Reply]] = []
        sources = []
        for message in messages:
            try:
                replies.append((message.topic.device_id, _command_id(message), life.read_reply(message.payload)))
                sources.append(message)
            except HeadwaterError as error:
                refused.append((message, error))
        outcomes = self._commands.answer_all(replies) if replies else []
        for message, outcome in zip(sources, outcomes, strict=True):
            if isinstance(outcome, HeadwaterError):
                refused.append((message, outcome))
        return refused

    def outgoing(self) -> Sequence[Outbound]:
        """See Traffic."""
        if time.monotonic() >= self._missed_at_s:
            self._missed_at_s = time.monotonic() + MISSED_S
            self._queue.wake_reachable()
        now_ns = clock.now_ns()
        due = [each for each in self._queue.due(now_ns, AT_ONCE) if each.command.id not in self._on_way]
        shelved = [each.command for each in due if not _may_send(each)]
        if shelved:
            self._queue.shelve(shelved)
        messages = [_message(each, now_ns) for each in due if _may_send(each)]
        self._on_way.update(str(message.token) for message in messages)
        return messages

    def confirm(self, receipts: Sequence[Receipt]) -> None:
        """See Traffic."""
        heard = [str(each.token) for each in receipts if each.is_heard]
        unheard = [str(each.token) for each in receipts if not each.is_heard]
        if heard:
            self._commands.note_sent(heard, "mqtt")
        if unheard:
            self._commands.note_unheard(unheard)
        self._on_way.difference_update(heard, unheard)


class Deadlines:
    """Ends commands whose deadline is over; one process does it, whether there is a broker or not."""

    def __init__(self, commands: CommandVerbs, queue: Queue) -> None:
        self._commands = commands
        self._queue = queue

    def look(self) -> None:
        """Look once."""
        while overdue := self._queue.overdue(clock.now_ns(), AT_ONCE):
            self._commands.expire(overdue)


def _may_send(due: Due) -> bool:
    command = due.command
    return due.is_reachable and command.state in ("queued", "sent") and command.tries < command.max_tries


def _message(due: Due, now_ns: int) -> Outbound:
    command = due.command
    form = life.form_of(command)
    left_s = max(1, -(-(command.deadline_ns - now_ns) // NS_PER_S))
    if form is not None:
        return Outbound(form.topic, b64decode(form.payload), command.id, form.qos, expiry_s=left_s)
    topic = topics.command(command.device, command.id)
    topic = topics.child(due.gateway, topic) if due.gateway else topic
    return Outbound(topic, orjson.dumps(life.payload(command)), command.id, command.qos, expiry_s=left_s)


def _command_id(message: Inbound) -> str:
    rest = message.topic.rest
    if not rest.endswith(_REPLY):
        raise BadRequest(f"not a topic for devices: commands/{rest}", code="bad_topic")
    return rest.removesuffix(_REPLY)
