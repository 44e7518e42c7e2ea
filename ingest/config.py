"""Settings of one ingestion service."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from chassis import logs
from chassis.services import ServiceList
from ingest.quarantine import MAX_ENTRIES
from wire.devices import RateLimit

GIB = 1024**3
MIB = 1024**2
MAX_DAYS = 36_500


class IngestConfig(BaseModel):
    """Settings of `headwater serve ingest --protocol P`; `protocol` names the family that this process serves."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    data: Path = Path("./data")
    host: str = "127.0.0.1"
    port: int = 8102
    service_token: str = ""  # what this service shows to the others
    services: ServiceList = ""  # whose tokens it takes; empty: the own one, of all services
    log_style: logs.Style = "auto"
    log_level: logs.Level = "info"
    protocol: str = Field(default="json", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    devices_url: str = "http://127.0.0.1:8101"
    store: str = "embedded:"  # read only: by what tries a new version of a device type on what is stored
    gateway_shed_file: Path | None = None  # where the gateway runs on this machine: a line for each request it refused
    spool_limit_bytes: int = Field(default=4 * GIB, ge=MIB)
    spool_floor_bytes: int = Field(default=256 * MIB, ge=0)
    device_rate_limit: RateLimit = ""  # readings of each device, such as 20:1,600:60; empty: no limit
    tenant_rate_limit: RateLimit = ""  # of all devices of a tenant together
    sparkplug_reorder_ms: int = Field(default=2_000, ge=0, le=60_000)  # how long messages may come out of order
    quarantine_limit_bytes: int = Field(default=GIB, ge=64 * 1024)  # of each tenant
    quarantine_limit_entries: int = Field(default=MAX_ENTRIES, ge=1_000)
    quarantine_keep_days: int | None = Field(default=None, ge=1, le=MAX_DAYS)  # what waits; None: until somebody acts
    quarantine_replayed_days: int = Field(default=7, ge=1, le=MAX_DAYS)  # what was replayed stays listed so long
