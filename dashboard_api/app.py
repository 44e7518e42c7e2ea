"""Wiring of the dashboard service."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask import Flask

import series
from chassis import settings, web
from chassis.guessing import TokenGuesses
from chassis.origin import remote_ip
from chassis.peers import HttpPeer, Peer
from chassis.services import Services
from chassis.tokens import PeerTokens
from chassis.workers import Workers
from dashboard_api import (
    access,
    api,
    browser,
    documents,
    enrolment,
    finding,
    offload,
    oidc,
    own,
    pages,
    people,
    session,
    type_pages,
    usage,
)
from dashboard_api.config import DashboardConfig
from dashboard_api.descriptions import Descriptions
from dashboard_api.directory import PeerDirectory
from dashboard_api.documents import Documents
from dashboard_api.feed import Feed
from dashboard_api.fleet import Fleet
from dashboard_api.hub import Hub
from dashboard_api.judges import Judges
from dashboard_api.service import Queries
from dashboard_api.source import FeedSource
from dashboard_api.type_desk import TypeDesk
from dashboard_api.views import Views
from series.port import SeriesReader


@dataclass(frozen=True, slots=True)
class Ports:
    """What the service stands on: store, other services, its own threads."""

    reader: SeriesReader
    devices: Peer
    ingest: Peer
    hub: Hub = field(default_factory=Hub)
    workers: Workers = field(default_factory=Workers)


def create_app(config: DashboardConfig | None = None) -> Flask:
    """Build the service with its real ports, and let the feed flow."""
    config = config or settings.load(DashboardConfig)
    ports = Ports(
        reader=series.open_reader(config.store, config.data),
        devices=HttpPeer(config.devices_url, config.service_token, remote_ip=remote_ip),
        ingest=HttpPeer(config.ingest_url, config.service_token, remote_ip=remote_ip),
    )
    source = FeedSource(config.broker, config.broker_username, config.broker_password, ports.hub.publish)
    source.start(ports.workers)
    app = assemble(config, ports)
    most = app.extensions["headwater.feed"].take_most
    ports.workers.start("usage", lambda: usage.tell_until(ports.workers.stopping, ports.devices, most))
    return app


def assemble(config: DashboardConfig, ports: Ports) -> Flask:
    """Build the app on given ports."""
    tokens = PeerTokens(ports.devices)
    directory = PeerDirectory(ports.devices)
    queries = Queries(ports.reader, directory, offload.choose())
    routes = api.routes(queries, Judges(ports.devices), Descriptions(ports.devices))
    described = Documents(routes, {"devices": ports.devices, "ingest": ports.ingest})
    guesses = TokenGuesses()
    session.add_routes(routes, ports.devices, tokens, guesses)
    oidc.add_routes(routes, ports.devices)
    people.add_routes(routes, ports.devices)
    own.add_routes(routes, ports.devices, tokens.forget)
    enrolment.add_routes(routes, ports.devices)
    access.add_routes(routes, ports.devices)
    views = Views(ports.devices, ports.ingest, queries, directory)
    pages.add_routes(routes, views, Fleet(directory, ports.ingest, ports.hub))
    finding.add_routes(routes, views, ports.devices)
    type_pages.add_routes(routes, TypeDesk(ports.devices))
    documents.add_routes(routes, described)
    browser.add_routes(routes)
    services = Services(config.services, config.service_token)
    edge = web.Edge("dashboard", services, tokens, lambda: {"store": queries.health()}, guesses=guesses)
    app = web.create_app(edge, routes, "dashboard_api")
    documents.install(app, described)
    browser.install(app)
    app.jinja_env.globals |= {"broker": config.broker, "provider": config.oidc_label if config.oidc_issuer else ""}
    feed = Feed(ports.hub, tokens, directory, ports.workers.stopping, guesses)
    feed.install(app)
    app.extensions |= {"headwater.workers": ports.workers, "headwater.feed": feed}
    return app
