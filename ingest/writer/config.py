"""Settings of the writer."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from chassis import logs, settings
from ingest.quarantine import MAX_ENTRIES


class WriterConfig(BaseModel):
    """Settings of `headwater writer`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    data: Path = Path("./data")
    host: str = "127.0.0.1"
    port: int = 8087  # probes and metrics; 0 picks a free one
    log_style: logs.Style = "auto"
    log_level: logs.Level = "info"
    store: str = "embedded:"
    retention_days: int | None = Field(default=None, ge=1)  # None: keep everything
    quarantine_limit_bytes: int = Field(default=1024**3, ge=64 * 1024)  # as the ingest services have it
    devices_url: str = "http://127.0.0.1:8101"  # empty: deleted devices are not followed
    service_token: str = ""
    quarantine_limit_entries: int = Field(default=MAX_ENTRIES, ge=1_000)  # likewise
    broker: settings.Address = "127.0.0.1:1883"  # empty: no feed
    broker_username: str = "_writer"  # also the client id
    broker_password: str = ""
