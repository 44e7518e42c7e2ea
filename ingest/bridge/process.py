"""The bridge process: MQTT in, batches to the ingest services, PUBACK only after their 200. Keeps nothing itself.

The rules stand at the head of bridge_session and bridge_lane; this module is wiring: settings, threads, signals,
probes and the watchdog that ends the process when a thread of it no longer turns (the supervisor starts it again).
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

from chassis import ending, logs, probes, settings
from chassis.peers import HttpPeer, Peer
from chassis.workers import Workers
from ingest.bridge.claims import ClaimFeed, Claims
from ingest.bridge.config import MEDIA_LIMITS, BridgeConfig, Limits, split_urls
from ingest.bridge.lane import Lane
from ingest.bridge.mailbox import Mailbox
from ingest.bridge.session import Session
from ingest.protocols import SERVICES

log = logs.get(__name__)
WATCH_S = 1.0
STUCK_AFTER_TURNS = 30  # of the watchdog without one of a thread; counted, so that a frozen process is not blamed
CLAIMS_WAIT_S, CLAIMS_PAUSE_S, CLAIMS_AWAY_S = 0.5, 0.1, 1.0  # a question to the registry, and until the next
FINISH_S = 3.0  # for the batch in flight at the end


class Bridge:
    """All parts of a running bridge."""

    def __init__(
        self, config: BridgeConfig, limits: Limits, connect: Callable[[str], Peer], session: type[Session] = Session
    ) -> None:
        urls = {SERVICES[0]: config.ingest_url} | split_urls(config.ingest_urls)
        self._mailbox = Mailbox()
        self._lanes = {
            service: Lane(connect(url), config.broker_username, self._mailbox.post, limits)
            for service, url in urls.items()
        }
        self._follows_claims = config.bridge_carries == "telemetry"
        self._feed = ClaimFeed(connect(config.devices_url), config.bridge_topics_file, self._learn)
        self.session = session(config, self._lanes, self._mailbox, limits, self._feed.current)
        self._senders, self._network, self._learner = Workers(), Workers(), Workers()

    def start(self) -> None:
        """Start the threads."""
        for service, lane in self._lanes.items():
            self._senders.start(f"send-{service}", lane.run)
        self._network.start("network", self.session.run)
        if self._follows_claims:
            self._learner.start("claims", self._follow_claims)

    def stop(self) -> None:
        """Finish the batch in flight, acknowledge it, disconnect; the session stays with the broker."""
        self.session.stop_reading()
        for lane in self._lanes.values():
            lane.stop()
        self._senders.stop(FINISH_S)
        self.session.end()
        self._learner.stopping.set()
        self._network.stop(FINISH_S)
        self._learner.stop(FINISH_S)
        self._mailbox.close()

    def _learn(self, claims: Claims) -> None:
        self.session.learn(claims)

    def _follow_claims(self) -> None:
        while not self._learner.stopping.is_set():
            has_answered = self._feed.poll(CLAIMS_WAIT_S)
            self._learner.stopping.wait(CLAIMS_PAUSE_S if has_answered else CLAIMS_AWAY_S)

    def checks(self) -> dict[str, str]:
        """Give the readiness checks."""
        return {
            "broker": "ok" if self.session.is_ready else "not connected and subscribed",
            "threads": "ok" if self.are_alive() else "a thread has ended",
        }

    def pulse(self) -> list[int | None]:
        """Give a number for each thread that changes while it works; None: it rightly waits."""
        lanes = [lane.batches if lane.is_posting else None for lane in self._lanes.values()]
        return [self.session.beats, *lanes]

    def are_alive(self) -> bool:
        """Tell whether all threads still run."""
        return self._senders.are_alive() and self._network.are_alive() and self._learner.are_alive()


def run(config: BridgeConfig, limits: Limits | None = None) -> int:
    """Run in the foreground until SIGTERM or SIGINT; gives the exit code."""
    ending.watch()
    logs.configure("bridge", style=config.log_style, level=config.log_level)
    limits = limits or (MEDIA_LIMITS if config.bridge_carries == "media" else Limits())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    bridge = Bridge(config, limits, lambda url: HttpPeer(url, config.service_token, timeout_s=limits.answer_timeout_s))
    server = probes.serve(config.host, config.port, bridge.checks)
    bridge.start()
    log.info("started", broker=config.broker, probes=server.server_address[1])
    code = watch(bridge, stopping)
    bridge.stop()
    server.shutdown()
    server.server_close()
    log.info("stopped", code=code)
    return code


def watch(bridge: Bridge, stopping: threading.Event) -> int:
    """Wait for the end; 1 when a thread died or stands still, so that a supervisor restarts us."""
    before = bridge.pulse()
    still = [0] * len(before)
    while not stopping.wait(WATCH_S):
        pulse = bridge.pulse()
        pairs = zip(still, pulse, before, strict=True)
        still = [turns + 1 if now is not None and now == last else 0 for turns, now, last in pairs]
        before = pulse
        if not bridge.are_alive() or max(still) >= STUCK_AFTER_TURNS:
            log.error("thread_dead", still_turns=max(still))
            return 1
    return 0


def main() -> int:
    """Run with the settings of the environment."""
    try:
        config = settings.load(BridgeConfig)
    except settings.SettingsError as error:
        print(f"headwater bridge: {error}", file=sys.stderr)  # noqa: T201 - before logs are configured
        return 2
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
