"""Settings and limits of ThingsBoard's MQTT door. Knows neither MQTT nor HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chassis import logs


class DoorConfig(BaseModel):
    """What an installation may set; each is `HEADWATER_<NAME>` in the environment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8087, ge=0, le=65_535)  # probes and metrics; 0 picks a free one
    thingsboard_bind: str = Field(default="127.0.0.1", pattern=r"^[0-9A-Za-z.:-]{1,255}$")
    thingsboard_port: int = Field(default=1884, ge=0, le=65_535)  # where devices connect; 0 picks a free one
    tls_cert: Path | None = None  # with it the port speaks TLS and nothing else
    tls_key: Path | None = None
    devices_url: str = "http://127.0.0.1:8101"
    ingest_url: str = "http://127.0.0.1:8102"  # of the service that runs the protocol thingsboard
    service_token: str = ""
    log_style: logs.Style = "auto"
    log_level: logs.Level = "info"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        return self


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """Bounds of the door; constants of the product, smaller in tests."""

    connections: int = 5_000  # of devices that are logged in
    strangers: int = 1_000  # connections beside them; the oldest ends when one more comes
    of_one_device: int = 4  # connections; the oldest ends when one more comes
    greeting_s: float = 10.0  # from connecting (and TLS) to CONNECT: who says nothing holds no place
    greeting_bytes: int = 8 * 1024  # of a CONNECT: larger ones are for nobody yet known
    provision_s: float = 60.0  # that a client without a credential may stay
    farewell_s: float = 5.0  # in which what was said last has to be read
    packet_bytes: int = 256 * 1024 + 1024  # the largest message with its topic and properties
    idle_s: float = 3_600.0  # of a client that names no keep-alive
    unread_bytes: int = 256 * 1024  # what a client may leave unread before its connection ends
    unheard: int = 100  # messages to it that it has not acknowledged; more wait, up to `unread_bytes`
    filters: int = 64  # of one connection
    waiting: int = 64  # questions to the registry of one connection, before it is left unread
    children: int = 10_000  # that one gateway has announced
    window_messages: int = 10_000  # un-acknowledged, of all connections
    window_bytes: int = 32 * 1024 * 1024
    report_s: float = 2.0  # how often the registry is told who is there
    retry_s: float = 1.0  # how soon the registry is asked again, when it is away
