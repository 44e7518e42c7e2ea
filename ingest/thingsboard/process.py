"""The process of ThingsBoard's MQTT door: settings, threads, signals, probes. Keeps nothing itself."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from chassis import ending, logs, probes, settings
from chassis.peers import HttpPeer, Peer
from chassis.workers import Workers
from ingest.gate import AWAY_S, PAUSE_S, WAIT_S, Gate
from ingest.reports import Reports
from ingest.thingsboard.config import DoorConfig, DoorLimits
from ingest.thingsboard.device import Services
from ingest.thingsboard.door import Access, Door
from ingest.thingsboard.downlink import Downlink
from ingest.thingsboard.family import GateFamily
from ingest.thingsboard.registry import Registry, connect
from ingest.thingsboard.uplink import Uplink

log = logs.get(__name__)
THREADS = 24  # for questions to the registry; two of them stay open
ANSWER_S = 10.0  # of one batch; a spool commit takes milliseconds
WATCH_S = 1.0
STUCK_AFTER_TURNS = 30  # of the watchdog without one of the lane; counted, so that a frozen process is not blamed
FINISH_S = 3.0  # for the batch in flight at the end
BACKLOG = 1_024
HANDSHAKE_S = 10.0


class DoorProcess:
    """All parts of a running door; made and used in its event loop."""

    def __init__(self, config: DoorConfig, limits: DoorLimits, registry: Peer, ingest: Peer) -> None:
        self._config = config
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._gate = Gate(registry)
        self._reports = Reports(registry)
        self._uplink = Uplink(ingest, limits, self._loop)
        self._downlink = Downlink(Registry(registry), limits.retry_s)
        family = GateFamily(self._gate, self._reports)
        services = Services(self._uplink, self._downlink, Registry(registry), family, limits)
        self._door = Door(Access(self._gate, self._reports), services)
        self._workers, self._sender = Workers(), Workers()
        self._tasks: list[asyncio.Task[None]] = []
        self._servers: list[asyncio.Server] = []
        self._tls = _tls(config)

    @property
    def port(self) -> int:
        """Where devices connect."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Start the threads, and listen."""
        self._sender.start("send-thingsboard", self._uplink.run)
        self._workers.start("gate-poll", self._poll)
        self._workers.every("reports", self._limits.report_s, self._reports.send)
        self._tasks.append(asyncio.create_task(self._downlink.run()))
        host, port = self._config.thingsboard_bind, self._config.thingsboard_port
        patience_s = HANDSHAKE_S if self._tls else None
        server = await asyncio.start_server(
            self._door.serve, host, port, backlog=BACKLOG, ssl=self._tls, ssl_handshake_timeout=patience_s
        )
        self._servers.append(server)

    async def stop(self) -> None:
        """Take nothing more, finish the batch in flight and acknowledge it, end the connections."""
        for server in self._servers:
            server.close()
        self._uplink.stop()
        await asyncio.to_thread(self._sender.stop, FINISH_S)
        await asyncio.sleep(0)  # what was settled last is acknowledged by now
        self._door.end_all()
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)
        await asyncio.to_thread(self._workers.stop, FINISH_S)
        await asyncio.to_thread(self._reports.send)  # who is gone now

    def reread(self) -> None:
        """Show the certificate that is on disk now to those who connect from now on."""
        if self._tls is not None:
            try:
                self._tls.load_cert_chain(str(self._config.tls_cert), str(self._config.tls_key))
            except (OSError, ssl.SSLError) as error:
                log.warning("certificate_unreadable", reason=str(error))

    def checks(self) -> dict[str, str]:
        """Give the readiness checks."""
        return {
            "listener": "ok" if self._servers and self._servers[0].is_serving() else "not listening",
            "threads": "ok" if self.is_alive() else "a thread or task has ended",
        }

    def is_alive(self) -> bool:
        """Tell whether all threads and tasks still run."""
        return self._workers.are_alive() and self._sender.are_alive() and not any(each.done() for each in self._tasks)

    @property
    def pulse(self) -> int | None:
        """See Uplink."""
        return self._uplink.pulse

    def _poll(self) -> None:
        revision = self._gate.revision
        while not self._workers.stopping.is_set():
            has_answered = self._gate.poll(WAIT_S)
            if self._gate.revision != revision:
                revision = self._gate.revision
                asyncio.run_coroutine_threadsafe(self._door.check_all(), self._loop)
            self._workers.stopping.wait(PAUSE_S if has_answered else AWAY_S)


async def serve(config: DoorConfig, limits: DoorLimits | None = None) -> int:
    """Run until SIGTERM or SIGINT; gives the exit code."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "ask"))
    ingest = HttpPeer(config.ingest_url, config.service_token, timeout_s=ANSWER_S)
    door = DoorProcess(config, limits or DoorLimits(), connect(config.devices_url, config.service_token), ingest)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, door.reread)
    await door.start()
    server = probes.serve(config.host, config.port, door.checks)
    log.info("started", port=door.port, probes=server.server_address[1])
    code = await watch(door, stopping)
    await door.stop()
    server.shutdown()
    server.server_close()
    log.info("stopped", code=code)
    return code


async def watch(door: DoorProcess, stopping: asyncio.Event) -> int:
    """Wait for the end; 1 when a thread died or stands still, so that a supervisor restarts us."""
    before, still = door.pulse, 0
    while not stopping.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S):
                await stopping.wait()
        now = door.pulse
        still = still + 1 if now is not None and now == before else 0
        before = now
        if not door.is_alive() or still >= STUCK_AFTER_TURNS:
            log.error("thread_dead", still_turns=still)
            return 1
    return 0


def _tls(config: DoorConfig) -> ssl.SSLContext | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_cert, config.tls_key)
    return context


def main() -> int:
    """Run with the settings of the environment."""
    try:
        config = settings.load(DoorConfig)
    except settings.SettingsError as error:
        print(f"headwater thingsboard-mqtt: {error}", file=sys.stderr)  # noqa: T201 - before logs are configured
        return 2
    ending.watch()
    logs.configure("thingsboard-mqtt", style=config.log_style, level=config.log_level)
    return asyncio.run(serve(config))
