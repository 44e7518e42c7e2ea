"""One run from start to verdict: register, ramp up, send, wait, verify, report."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

from simulators.device import Device, Habits
from simulators.fleet import Fleet, Pace
from simulators.http import parse_url
from simulators.journal import Journal
from simulators.ledger import Ledger, read_ledger
from simulators.mqtt import MqttClient, MqttSettings
from simulators.options import Options
from simulators.outbox import Login, Renew, Sender
from simulators.platform_api import PlatformApi, PlatformError
from simulators.poster import HttpSender, HttpSettings
from simulators.probe import Probe
from simulators.progress import Progress
from simulators.registration import Registrar, make_members
from simulators.report import make_report
from simulators.scenario import load
from simulators.stats import Durations
from simulators.verify import Verdict, Verifier
from wire import clock

_FAST_HZ = 200.0  # a device faster than this tells time in us: in ms its times would run ahead of the clock
_BACKLOG_TOTAL = 200_000  # readings that all devices together may keep while they cannot send; about 80 MB
_BACKLOG_DEVICE = 2_000
# Acknowledged readings that are kept until the acks topic covers them: all devices together about 30 MB.
_OUTBOX_DEVICE, _OUTBOX_LEAST, _OUTBOX_TOTAL = 500, 20, 100_000
_STANDING_PAUSE_S = 2.0
_STANDING_DRAIN_S = 1.0


class Run:
    """A run and all it needs; used once, inside an event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._start_ns = clock.now_ns()
        scenarios = [load(name) for name in options.scenarios]
        self._members = make_members(scenarios, options.devices, options.prefix, options.type)
        self._tls = ssl.create_default_context(cafile=str(options.ca)) if options.ca else None
        self._endpoint = parse_url(options.url, self._tls)
        self._ts_ns = 1_000 if options.rate_hz > _FAST_HZ else 1_000_000
        self._journal = Journal()
        self._progress = Progress(sys.stderr, self._journal)
        self._api: PlatformApi | None = None
        self._fleet: Fleet | None = None

    async def execute(self) -> dict[str, Any]:
        """Give the report.

        Raises:
            PlatformError: the platform cannot be reached, or refuses the operator.
            OSError: the ledger cannot be written.
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
        logins, renew = await self._enrol()
        self._journal = Journal(self._open_ledger(ledger_path) if options.verify or options.ledger else None)
        self._progress = Progress(sys.stderr, self._journal, is_standing=options.duration_s is None)
        fleet = Fleet(self._make_devices(logins, renew), self._pace(), self._journal, self._rng("fleet"))
        visible_ms = await self._send(fleet)
        rate = fleet.steady.rate() or self._journal.mean_rate()
        verdict = await self._verify(ledger_path) if options.verify else None
        return make_report(options, self._journal, rate, visible_ms, verdict)

    async def _enrol(self) -> tuple[list[Login], Renew | None]:
        """Register the fleet; a standing one waits for the platform instead of giving up."""
        while True:
            try:
                return await self._enrol_once()
            except PlatformError as error:
                if self._options.duration_s is not None:
                    raise
                self._progress.say(f"waiting for the platform: {error}")
                await asyncio.sleep(_STANDING_PAUSE_S)

    async def _enrol_once(self) -> tuple[list[Login], Renew | None]:
        if not self._options.register:
            return [Login(member.device_id) for member in self._members], None
        if self._api is None:
            self._api = PlatformApi(self._endpoint, _read_token(self._options.token_file))
        self._progress.say(f"registering {len(self._members):,} devices at {self._options.url}")
        registrar = Registrar(self._api, self._options.credentials)
        logins = await registrar.register(self._members)
        return logins, registrar.renew if self._options.credentials else None

    async def _send(self, fleet: Fleet) -> Durations:
        options, journal = self._options, self._journal
        self._fleet = fleet
        keeper = fleet.watch(asyncio.create_task(journal.keep(), name="ledger"))
        fleet.beside(self._progress.run(fleet), "progress")
        visible_ms = self._start_probe(fleet)
        try:
            await fleet.run()
            drain_s = _STANDING_DRAIN_S if options.duration_s is None else options.drain_s
            if not await fleet.drain(drain_s):
                self._progress.say(f"{fleet.backlog:,} messages not acknowledged after {drain_s:g} s")
        finally:
            self._fleet = None
            await fleet.close()
            journal.end()
            await keeper
        if not journal.sent_count and options.duration_s is not None:
            raise PlatformError(f"nothing could be sent: {dict(journal.errors) or 'no device got ready'}")
        journal.errors.update(fleet.shortfall())
        return visible_ms

    def _start_probe(self, fleet: Fleet) -> Durations:
        if self._api is None or self._options.duration_s is None:
            return Durations()
        probe = Probe(self._api, self._journal, [member.device_id for member in self._members], self._ts_ns)
        fleet.beside(probe.run(), "probe")
        return probe.visible_ms

    async def _verify(self, ledger_path: Path) -> Verdict:
        assert self._api is not None
        self._progress.say("verifying: what was acknowledged against what can be queried")
        fields = [len(member.scenario.fields) for member in self._members]
        accounts = await asyncio.to_thread(read_ledger, ledger_path)
        verdict = await Verifier(self._api, accounts, fields, self._options.drain_s).verify()
        if verdict.lost_devices:
            self._progress.say(f"readings are missing of: {', '.join(verdict.lost_devices[:10])}")
        return verdict

    def _make_devices(self, logins: list[Login], renew: Renew | None) -> list[Device]:
        options, now_s = self._options, self._start_ns / 1e9
        limit = max(50, options.batch * 2, min(_BACKLOG_DEVICE, _BACKLOG_TOTAL // options.devices))
        habits = Habits(options.faults, self._ts_ns, options.size, limit, options.protocol, options.batch > 1)
        devices = []
        for index, (member, login) in enumerate(zip(self._members, logins, strict=True)):
            rng = self._rng(member.device_id.removeprefix(options.prefix))
            model = member.scenario.make(rng, now_s, member.number)
            device = Device(index, member.device_id, self._boot_id(member.device_id), habits, model, rng)
            device.sender = self._make_sender(login, renew)
            devices.append(device)
        return devices

    def _make_sender(self, login: Login, renew: Renew | None) -> Sender:
        options, rng = self._options, self._rng("network/" + login.device_id)
        if options.transport == "http":
            return HttpSender(HttpSettings(self._endpoint, batch=options.batch), login, self._journal, rng, renew)
        host, port = options.mqtt
        tls = (self._tls or ssl.create_default_context()) if options.mqtt_tls else None
        settings = MqttSettings(
            host,
            port,
            options.version,
            options.qos,
            options.window,
            tls=tls,
            topic=options.topic,
            outbox=self._outbox(),
        )
        return MqttClient(settings, login, self._journal, rng, renew)

    def _outbox(self) -> int:
        if self._options.outbox is not None or not self._options.register:
            return self._options.outbox or 0  # a bare broker has nobody who publishes on that topic
        return max(_OUTBOX_LEAST, min(_OUTBOX_DEVICE, _OUTBOX_TOTAL // self._options.devices))

    def _open_ledger(self, path: Path) -> Ledger:
        devices = [member.device_id for member in self._members]
        boot_ids = [self._boot_id(device_id) for device_id in devices]
        head = {"start_ns": self._start_ns, "ts_ns": self._ts_ns, "devices": devices, "boot_ids": boot_ids}
        return Ledger(path, head)

    def _pace(self) -> Pace:
        options = self._options
        return Pace(options.rate_hz, options.ramp_hz, options.duration_s, options.faults.storm, options.drain_s)

    def _boot_id(self, device_id: str) -> str:
        text = f"{self._options.seed}/{self._start_ns}/{device_id}"
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self._options.seed}/{purpose}")

    def _interrupt(self, task: asyncio.Task[Any] | None) -> None:
        """First interrupt: stop sending, wait, verify, report. Without a fleet, or the second time: stop at once."""
        if self._fleet is None:
            assert task is not None
            task.cancel()
            return
        self._fleet.stop()
        self._fleet = None


def _read_token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise PlatformError(f"operator token: {error.strerror}: {path} (see --token-file)") from error
