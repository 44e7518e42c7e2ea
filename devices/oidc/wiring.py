"""Wiring of the log-in by a provider."""

from __future__ import annotations

from chassis.web import Api
from devices.database.engine import Database
from devices.enrolment.seal import Seal
from devices.oidc import api
from devices.oidc.config import OidcSettings
from devices.oidc.provider import Client, Provider
from devices.oidc.service import SignOn
from devices.oidc.store import PeopleStore


def add_routes(routes: Api, settings: OidcSettings, database: Database, seal: Seal) -> None:
    """Declare the routes; the provider is asked when the first person comes."""
    if not settings.oidc_issuer:
        api.add_routes(routes, None)
        return
    client = Client(
        settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret,
        settings.oidc_redirect_url, settings.oidc_scopes,
    )  # fmt: skip
    api.add_routes(routes, SignOn(settings, Provider(client), PeopleStore(database), seal))
