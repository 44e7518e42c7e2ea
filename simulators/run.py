"""One run from start to verdict: register, send, verify, report."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

from simulators.control import ControlBook
from simulators.control_verdict import find_lost, summary
from simulators.crew import Crew
from simulators.http import parse_url
from simulators.ledger import Ledger, read_ledger
from simulators.metrics import serve_metrics
from simulators.options import Options
from simulators.outbox import Keep, Login
from simulators.platform_api import PlatformApi, PlatformError, read_token
from simulators.progress import Progress
from simulators.registration import Registrar, make_members
from simulators.report import make_report
from simulators.sparkplug import SPARKPLUG
from simulators.squad import Order, Squad, boot_id, deal, ts_unit_ns
from simulators.tally import Tally
from simulators.verify import Verdict, Verifier
from wire import clock

_STANDING_PAUSE_S = 2.0
_CLAIMS = 16  # made at once
_CLAIM_S = 3.0  # until the broker goes by new claims: what is published before is lost without a word


class Troop(Protocol):
    """Whatever runs the devices, in this process or in several."""

    async def run(self) -> Tally: ...
    def stop(self) -> None: ...
    def tally(self) -> Tally: ...


class Run:
    """A run and all it needs; used once, inside an event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._start_ns = clock.now_ns()
        self._members = make_members(options.groups, options.devices, options.prefix, options.type)
        tls = ssl.create_default_context(cafile=str(options.ca)) if options.ca else None
        self._endpoint = parse_url(options.url, tls)
        self._progress = Progress(sys.stderr, is_standing=options.duration_s is None)
        self._api: PlatformApi | None = None
        self._troop: Troop | None = None

    async def execute(self) -> dict[str, Any]:
        """Give the report.

        Raises:
            PlatformError: the platform cannot be reached, or refuses the operator.
            OSError: the ledger cannot be written, or the port of the metrics is taken.
            WorkerError: a process of several failed.
            CancelledError: interrupted before there was anything to report.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, task)
        try:
            with tempfile.TemporaryDirectory(prefix="headwater-sim-") as folder:
                return await self._execute(self._options.ledger or Path(folder) / "ledger")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            if self._api is not None:
                self._api.close()

    async def _execute(self, ledger_path: Path) -> dict[str, Any]:
        options = self._options
        async with serve_metrics(options.metrics_port, self._tally):
            logins, keep = await self._enrol()
            has_ledger = options.verify or options.ledger is not None
            if has_ledger:
                self._begin_ledger(ledger_path)
            members = tuple(enumerate(self._members))
            order = Order(options, self._start_ns, members, tuple(logins), ledger_path if has_ledger else None, True)
            tally = await self._send(order, keep)
            verdict = await self._verify(ledger_path) if options.verify else None
            control = await self._judge_control(tally.control)
        return make_report(tally, verdict, options.seed, options.settings, control)

    async def _enrol(self) -> tuple[list[Login], Keep | None]:
        """Register the fleet; a standing one waits for the platform instead of giving up."""
        while True:
            try:
                return await self._enrol_once()
            except PlatformError as error:
                if self._options.duration_s is not None:
                    raise
                self._progress.say(f"waiting for the platform: {error}")
                await asyncio.sleep(_STANDING_PAUSE_S)

    async def _enrol_once(self) -> tuple[list[Login], Keep | None]:
        if not self._options.register:
            return [Login(member.device_id) for member in self._members], None
        if self._api is None:
            self._api = PlatformApi(self._endpoint, read_token(self._options.token_file))
        self._progress.say(f"registering {len(self._members):,} devices at {self._options.url}")
        registrar = Registrar(self._api, self._options.credentials)
        logins = await registrar.register(self._members)
        if self._options.protocol == SPARKPLUG:
            await self._claim_topics(self._api)
        return logins, registrar.keep if self._options.credentials else None

    async def _claim_topics(self, api: PlatformApi) -> None:
        for first in range(0, len(self._members), _CLAIMS):
            await asyncio.gather(*(api.name_node(each.device_id) for each in self._members[first : first + _CLAIMS]))
        await asyncio.sleep(_CLAIM_S)

    async def _send(self, order: Order, keep: Keep | None) -> Tally:
        options = self._options
        self._troop = Squad(order, keep) if options.processes == 1 else Crew(deal(order, options.processes), keep)
        showing = asyncio.create_task(self._progress.run(self._troop.tally), name="progress")
        try:
            tally = await self._troop.run()
        finally:
            self._troop = None
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing
        if tally.waiting and options.duration_s is not None:
            self._progress.say(f"{tally.waiting:,} messages not acknowledged after {options.drain_s:g} s")
        if not tally.sent and options.duration_s is not None:
            raise PlatformError(f"nothing could be sent: {dict(tally.errors) or 'no device got ready'}")
        return tally

    async def _verify(self, ledger_path: Path) -> Verdict:
        assert self._api is not None
        self._progress.say("verifying: what was acknowledged against what can be queried")
        accounts = await asyncio.to_thread(read_ledger, ledger_path)
        verdict = await Verifier(self._api, accounts, self._options.drain_s).verify()
        if verdict.lost_devices:
            self._progress.say(f"readings are missing of: {', '.join(verdict.lost_devices[:10])}")
        return verdict

    async def _judge_control(self, book: ControlBook) -> dict[str, Any]:
        options = self._options
        if not options.verify or not (book.asked or book.answers):
            return summary(book)
        assert self._api is not None
        self._progress.say("verifying: what became of the commands")
        return summary(book, await find_lost(self._api.commands, book, options.drain_s))

    def _begin_ledger(self, path: Path) -> None:
        ids = [member.device_id for member in self._members]
        head = {
            "start_ns": self._start_ns,
            "ts_ns": ts_unit_ns(self._options),
            "devices": ids,
            "boot_ids": [boot_id(self._options, self._start_ns, device_id) for device_id in ids],
            "fields": [len(member.group.fields) for member in self._members],
        }
        Ledger(path, head).close()

    def _tally(self) -> Tally:
        return self._troop.tally() if self._troop is not None else Tally()

    def _interrupt(self, task: asyncio.Task[Any] | None) -> None:
        """First interrupt: stop sending, wait, verify, report. With nothing to stop, or a second time: end at once."""
        if self._troop is None or self._is_stopped:
            assert task is not None
            task.cancel()
            return
        self._is_stopped = True
        self._troop.stop()

    _is_stopped = False
