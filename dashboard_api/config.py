"""Settings of the dashboard service."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from chassis import logs, settings
from chassis.services import ServiceList


class DashboardConfig(BaseModel):
    """Where the dashboard listens, whom it asks, and what it shows."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    data: Path = Path("./data")
    host: str = "127.0.0.1"
    port: int = Field(default=8103, ge=0, le=65535)
    service_token: str = ""  # what this service shows to the others
    services: ServiceList = ""  # whose tokens it takes; empty: the own one, of all services
    log_style: logs.Style = "auto"
    log_level: logs.Level = "info"
    devices_url: str = "http://127.0.0.1:8101"
    ingest_url: str = "http://127.0.0.1:8102"
    broker: settings.Address = "127.0.0.1:1883"
    broker_username: str = "_dashboard"
    broker_password: str = ""
    store: str = "embedded:"
    oidc_issuer: str = ""  # the registry's setting: with it the log-in shows a button
    oidc_label: str = "single sign-on"  # what people call the provider
