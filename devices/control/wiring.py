"""Wiring of twins, commands and the history of presence: their stores, verbs, routes and threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from chassis.web import Api
from chassis.workers import Workers
from devices.bulk.service import Do, More
from devices.commands import api as commands_api
from devices.commands import hook
from devices.commands.mqtt import OVERDUE_S, CommandTraffic, Deadlines
from devices.commands.service import CommandVerbs, to_wanted
from devices.commands.store import CommandQueue, CommandStore
from devices.config import DevicesConfig
from devices.control.door import FLUSH_S, DeviceDoor
from devices.control.link import BrokerLink
from devices.control.news import Bell, NewsStore
from devices.database.engine import Database
from devices.gateways.attempts import Attempts
from devices.gateways.ways import Ways
from devices.internal.lookups import LookupStore
from devices.jobs.kinds import Job, Step
from devices.presence import api as presence_api
from devices.presence.journal import PresenceJournal
from devices.query.reach import QueryReaches
from devices.query.store import Finder
from devices.thingsboard import api as thingsboard
from devices.twins import api as twins_api
from devices.twins import hook as twins_hook
from devices.twins import merge
from devices.twins.edit import Edit
from devices.twins.mqtt import TwinTraffic
from devices.twins.service import TwinVerbs
from devices.twins.store import DesiredStore, TwinStore
from wire import clock
from wire.clock import NS_PER_S
from wire.finding import Desire, SendCommand

SWEEP_S = 600.0  # how often old history is deleted
_DAY_NS = 86_400 * NS_PER_S


class Control:
    """State and control of devices, as one process of the registry has it."""

    def __init__(self, database: Database, config: DevicesConfig, door: DeviceDoor) -> None:
        self._config = config
        self._door = door
        self.bell = self._bell = Bell(NewsStore(database), config.most_waiting)
        self._twin_rows = TwinStore(database, config.twin_history)
        self._twins = TwinVerbs(self._twin_rows, self._bell)
        self._desired = DesiredStore(database)
        self._queue = CommandQueue(database, config.command_window)
        self._commands = CommandVerbs(CommandStore(database, config.command_window, config.command_queue), self._bell)
        self._journal = PresenceJournal(database)
        self._attempts = Attempts(database)
        self._door.trespassed = self._attempts.note
        self._ways = Ways(database, self._attempts.note)
        self._revision = LookupStore(database).revision
        self._reaches = QueryReaches(Finder(database))

    def add_routes(self, api: Api) -> None:
        """Declare the routes."""
        twins_api.add_routes(api, self._twins, self._door)
        commands_api.add_routes(api, self._commands, self._door, self._reaches)
        hook.add_routes(api, self._commands)
        twins_hook.add_routes(api, self._desired, self._bell)
        presence_api.add_routes(api, self._journal)
        thingsboard.add_routes(api, self._twins, self._commands, self._door)

    def start(self, workers: Workers) -> None:
        """Start the threads of every process; stopping the workers ends them."""
        self._bell.start(workers)
        workers.every("device-visits", FLUSH_S, self._door.flush)
        workers.every("refused-attempts", FLUSH_S, self._attempts.flush)

    def deeds(self) -> More:
        """Name what bulk actions can do with commands and twins."""

        def command(job: Job, action: SendCommand) -> Do:
            wanted = to_wanted("", action.command, job.id, job.id)
            # From the start of the job: what a crash held up is not sent when nobody wants it any more.
            wanted = replace(wanted, deadline_ns=job.created_ns + int(wanted.deadline_s * NS_PER_S))

            def send(ids: Sequence[str]) -> Sequence[object]:
                return self._commands.send_all(job.tenant, [replace(wanted, device=id_) for id_ in ids], job.who)

            return send

        def desire(job: Job, action: Desire) -> Do:
            edit = Edit("", "desired", merge.check(action.desired), job.who.actor)
            return lambda ids: self._twins.desire_all(job.tenant, [edit.with_device(id_) for id_ in ids], job.who)

        def cancel(job: Job) -> Step:
            withdrawn = self._commands.cancel_of_job(job.tenant, job.id, job.who)
            total = job.result.get("cancelled", 0) + withdrawn.cancelled
            return Step(result={"cancelled": total}, is_last=not withdrawn.open)

        return More({"command": command, "desire": desire}, {"command": cancel})

    def chores(self) -> dict[str, Callable[[threading.Event], None]]:
        """Name the threads of which one process has one each."""
        return {"control": self._carry, "control-tend": self._tend}

    def arrive(self, devices: Sequence[str]) -> None:
        """Take the news that devices have come to the broker; in the process that hears it."""
        if self._queue.wake(devices):
            self._bell.ring()

    def _carry(self, stopping: threading.Event) -> None:
        """Carry twins and commands to the broker and back until stopped; only one process does."""
        config = self._config
        if not config.broker or not config.control_password:
            stopping.wait()
            return
        credential = (config.control_username, config.control_password)
        twins = TwinTraffic(self._twins, self._desired, self._revision)
        both = (twins, CommandTraffic(self._commands, self._queue))
        link = BrokerLink(config.broker, credential, both, self._door.note_spoke, self._ways)
        self._bell.also = link.ring
        link.run(stopping)

    def _tend(self, stopping: threading.Event) -> None:
        """End what is over, delete what is old, until stopped; only one process does."""
        deadlines = Deadlines(self._commands, self._queue)
        swept_s = -SWEEP_S
        while not stopping.wait(OVERDUE_S):
            deadlines.look()
            if time.monotonic() - swept_s >= SWEEP_S:
                swept_s = time.monotonic()
                now_ns = clock.now_ns()
                self._twin_rows.forget(now_ns - int(self._config.twin_history_days * _DAY_NS))
                self._queue.forget(now_ns - int(self._config.command_days * _DAY_NS))
                self._journal.forget(now_ns - int(self._config.presence_days * _DAY_NS))
