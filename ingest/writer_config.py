"""Settings of the writer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ingest.bridge_config import split_address


class WriterConfig(BaseModel):
    """Settings of `headwater writer`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    data: Path = Path("./data")
    host: str = "127.0.0.1"
    port: int = 8087  # probes and metrics; 0 picks a free one
    log_style: Literal["auto", "json", "text"] = "auto"
    log_level: str = "info"
    store: str = "embedded:"
    retention_days: int | None = Field(default=None, ge=1)  # None: keep everything
    quarantine_limit_bytes: int = Field(default=1024**3, ge=64 * 1024)  # as the ingest services have it
    broker: str = "127.0.0.1:1883"  # empty: no feed
    broker_username: str = "_writer"  # also the client id
    broker_password: str = ""

    @field_validator("broker")
    @classmethod
    def _check_broker(cls, text: str) -> str:
        if text:
            split_address(text)
        return text
