"""Wiring of one ingestion service: `create_app` for gunicorn, one app per worker process (never preloaded)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask

from chassis import logs, settings, web
from chassis.metrics import Gauge
from chassis.origin import remote_ip
from chassis.parking import QUICK
from chassis.peers import HttpPeer, Peer
from chassis.reach import PeerReaches
from chassis.services import Services
from chassis.tokens import PeerTokens
from chassis.workers import Workers
from ingest import api as device_api
from ingest import protocols_api, quarantine_api, trials_api
from ingest.config import IngestConfig
from ingest.courier import Courier
from ingest.gate import AWAY_S, PAUSE_S, WAIT_S
from ingest.held import HeldData
from ingest.ledger import Ledger
from ingest.media.config import MediaConfig
from ingest.opening import open_ports
from ingest.ports import Ports
from ingest.protocols import PROTOCOLS, SERVICES, Protocol, served_by
from ingest.protocols.base import Host, Words
from ingest.quarantine import Quarantine
from ingest.replay import Replayer
from ingest.reports import SEND_S
from ingest.service import IngestService
from ingest.shed import ShedCount
from ingest.spool.batcher import GroupCommit
from ingest.spool.segments import accepted_total, open_spool
from ingest.traffic import Traffic
from ingest.trials_process import TrialsProcess
from ingest.writer.state import read_boots, read_counters, read_tenant
from wire import clock
from wire.declared import REFUSED
from wire.errors import Unavailable

if TYPE_CHECKING:
    from ingest.media.wiring import Parts as MediaParts

log = logs.get(__name__)
PRUNE_S = 600.0
MEDIA = "media"  # the protocol whose messages are kept as they are
DAY_NS = 86_400 * clock.NS_PER_S
SPOOL_BYTES = Gauge("headwater_ingest_spool_bytes", "Bytes in this process' spool slot", multiprocess_mode="livesum")


def create_app(
    config: IngestConfig | None = None, registry: Peer | None = None, media: MediaConfig | None = None
) -> Flask:
    """Build the service; `registry` is the devices service, for tests."""
    if config is None:
        config = settings.load(IngestConfig)
        logs.configure(f"ingest-{config.protocol}", style=config.log_style, level=config.log_level)
    registry = registry or HttpPeer(config.devices_url, config.service_token, remote_ip=remote_ip)
    ports, closing = _open_ports(config, registry)
    protocols, hosts = _open_hosts(config, closing)
    service = IngestService(ports, protocols, list(hosts.values()))
    spool = config.data / "spool"
    api, workers, reaches = web.Api(), Workers(), PeerReaches(registry)
    parts = _add_doors(api, service, ports, reaches, config, media)
    if parts is not None:
        closing.push(parts.closing)
    if config.protocol == SERVICES[0]:
        for entry, reason in REFUSED.items():
            log.error("protocol_refused", entry=entry, reason=reason)
        _keep_books(api, workers, config, ports, closing)

    def ready() -> dict[str, str]:
        is_writable = os.access(spool / config.protocol, os.W_OK)
        return {
            "spool": "ok" if is_writable else "the spool folder cannot be written",
            "registry": "ok" if ports.gate.has_reached_registry else "the registry was not reached yet",
            "workers": "ok" if workers.are_alive() else "a background thread ended",
        }

    services = Services(config.services, config.service_token)
    edge = web.Edge(f"ingest-{config.protocol}", services, PeerTokens(registry), ready, reaches=reaches)
    app = web.create_app(edge, api, __name__)
    app.extensions[QUICK] = ("/v1/telemetry", *(path for each in service.protocols.values() for path in each.paths))
    closing.callback(workers.stop)
    _start(workers, config, service, ports)
    couriers = _couriers(registry, hosts, service)
    if (downlinks := ports.downlinks) is not None:
        couriers.append(Courier(registry, config.protocol, downlinks, downlinks.hold))
    _carry_orders(workers, couriers, service)
    app.extensions |= {"headwater.workers": workers, "headwater.media": parts}
    app.extensions["headwater.close"] = closing.close
    return app


def _add_doors(
    api: web.Api,
    service: IngestService,
    ports: Ports,
    reaches: PeerReaches,
    config: IngestConfig,
    media: MediaConfig | None,
) -> MediaParts | None:
    if config.protocol != MEDIA:
        device_api.add_routes(api, service, ports.gate, ports.reports)
        return None
    from ingest.media import wiring

    # Read here: what is wrong with them stops no other service.
    return wiring.add(api, service, ports, reaches, media or settings.load(MediaConfig), config.data / MEDIA)


def _couriers(registry: Peer, hosts: dict[str, Host], service: IngestService) -> list[Courier]:
    """Give a courier to each host whose devices take commands."""
    worders = {name: host for name, host in hosts.items() if isinstance(host, Words)}
    return [Courier(registry, name, host, service.hold_hosts) for name, host in worders.items()]


def _carry_orders(workers: Workers, couriers: Sequence[Courier], service: IngestService) -> None:
    for courier in couriers:
        service.after_batch = courier.ring
        workers.start("claim-commands", partial(courier.claim_until, workers.stopping))
        workers.start("word-commands", partial(courier.word_until, workers.stopping))


def _open_hosts(config: IngestConfig, closing: ExitStack) -> tuple[dict[str, Protocol], dict[str, Host]]:
    """Give the protocols of this service, and the hosts of those that are decoded in order."""
    protocols, hosts = served_by(config.protocol), dict[str, Host]()
    for name, protocol in protocols.items():
        protocol.decode  # noqa: B018 - loaded now: a service without its code does not start, and its messages wait
        if protocol.host:
            host = protocol.open_host(config.data / "ingest")
            closing.callback(host.close)
            hosts[name] = host
            protocols[name] = protocol.hosted_by(host)
    return protocols, hosts


def _keep_books(api: web.Api, workers: Workers, config: IngestConfig, ports: Ports, closing: ExitStack) -> None:
    """Let one of the services answer for what all of them keep: quarantine, ledger, trials of new device types."""
    ledger = Ledger(ports.quarantine, lambda: accepted_total(config.data / "spool"),
                    partial(read_counters, config.data), partial(read_boots, config.data),
                    partial(read_tenant, config.data, {}))  # fmt: skip
    replayer = Replayer(ports, PROTOCOLS)
    quarantine_api.add_routes(api, ports, replayer, ledger)
    protocols_api.add_routes(api, ports.quarantine, ports.traffic)
    trials = TrialsProcess(config)
    closing.callback(trials.close)
    trials_api.add_routes(api, trials)
    _start_pruning(workers, config, ports.quarantine)
    held = HeldData(ports, replayer, config.data / "held.lock")
    workers.start("held-data", lambda: held.run(workers.stopping))


def _open_ports(config: IngestConfig, registry: Peer) -> tuple[Ports, ExitStack]:
    def open_commit(closing: ExitStack) -> GroupCommit:
        spool, limits = config.data / "spool" / config.protocol, (config.spool_limit_bytes, config.spool_floor_bytes)
        commit = GroupCommit(open_spool(spool, limit_bytes=limits[0], floor_bytes=limits[1]))
        closing.callback(commit.close)
        return commit

    ports, closing = open_ports(config, registry, open_commit)
    with closing:
        traffic = Traffic(config.data / "ingest")
        closing.callback(traffic.close)
        traffic.begin(config.protocol, clock.now_ns())
        return replace(ports, traffic=traffic), closing.pop_all()
    raise AssertionError


def _start(workers: Workers, config: IngestConfig, service: IngestService, ports: Ports) -> None:
    shed = ShedCount(config.gateway_shed_file) if config.gateway_shed_file else None

    def report(turn: int) -> None:
        SPOOL_BYTES.set(ports.commit.size_bytes())
        if shed is not None:
            shed.read()
        ports.reports.tell(turn)
        service.save_counts()
        ports.traffic.save(clock.now_ns())

    def report_until_stopped() -> None:
        turn = 0
        while not workers.stopping.wait(SEND_S):
            turn += 1
            report(turn)
        report(0)  # what was counted since, before the process ends

    def poll_until_stopped() -> None:
        has_answered = ports.gate.poll()
        while not workers.stopping.wait(PAUSE_S if has_answered else AWAY_S):
            has_answered = ports.gate.poll(WAIT_S)

    workers.start("gate-poll", poll_until_stopped)
    workers.start("reports", report_until_stopped)


def _start_pruning(workers: Workers, config: IngestConfig, quarantine: Quarantine) -> None:
    def prune_until_stopped() -> None:
        while True:
            now_ns, keep_days = clock.now_ns(), config.quarantine_keep_days
            try:
                quarantine.prune(
                    waiting_before_ns=None if keep_days is None else now_ns - keep_days * DAY_NS,
                    replayed_before_ns=now_ns - config.quarantine_replayed_days * DAY_NS,
                )
            except Unavailable as error:
                log.warning("quarantine_not_pruned", detail=error.detail)
            if workers.stopping.wait(PRUNE_S):
                return

    workers.start("quarantine-prune", prune_until_stopped)
