"""Settings and limits of the bridge. Knows neither MQTT client nor HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from chassis import logs, settings


class BridgeConfig(BaseModel):
    """What an installation may set; each is `HEADWATER_<NAME>` in the environment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = 8086  # probes and metrics; 0 picks a free one
    broker: settings.Address = Field(default="127.0.0.1:1883", min_length=1)
    broker_username: str = "_bridge"  # also the client id, and so the name of the durable session
    broker_password: str = ""
    broker_pid_file: Path | None = None  # where the broker runs on this machine: lets the bridge ask it to save
    broker_session_file: Path | None = None  # where the name of the broker's session is kept, beside its state
    bridges: int = Field(default=1, ge=1, le=8)  # that share the messages of one broker
    bridge_number: int = Field(default=1, ge=1)  # of this one; above `bridges`: it only hands in what its session holds
    broker_ca: Path | None = None  # speak TLS with the broker and trust certificates of this authority (PEM) only
    broker_protocol: Literal["5", "3.1.1"] = "5"
    bridge_reader: Literal["batch", "paho"] = "batch"  # how the bridge reads MQTT; paho: its own way, ten times slower
    bridge_carries: Literal["telemetry", "media"] = "telemetry"  # media: their own topics only, to `ingest_url`
    bridge_topics_file: Path | None = None  # where the claims of topics are kept, for a start without the registry
    # The id by which edge nodes wait for us as their primary host; empty: we are none.
    sparkplug_host: str = Field(default="headwater", max_length=128, pattern=r"^[^+#/\x00]*$")
    devices_url: str = "http://127.0.0.1:8101"
    ingest_url: str = "http://127.0.0.1:8102"
    ingest_urls: str = ""  # "senml=http://127.0.0.1:8112,line=http://..": services beside that of json
    service_token: str = ""
    log_style: logs.Style = "auto"
    log_level: logs.Level = "info"

    @field_validator("ingest_urls")
    @classmethod
    def _check_urls(cls, text: str) -> str:
        split_urls(text)
        return text


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the bridge; constants of the product, smaller in tests."""

    window_messages: int = 20_000  # un-acked at most; half a minute of 1,000 devices, and below MQTT's 65,535 ids
    window_bytes: int = 32 * 1024 * 1024
    batch_messages: int = 1_000
    batch_bytes: int = 1024 * 1024
    linger_s: float = 0.005  # how long a batch waits for more messages,
    busy_linger_s: float = 0.025  # and under load: larger batches beat faster code (bench/bridge.py)
    keepalive_s: int = 30
    answer_timeout_s: float = 10.0  # of one batch; a spool commit takes milliseconds
    retry_first_s: float = 0.1
    retry_most_s: float = 1.0  # adds to the time of recovery; a try costs a connection
    retry_after_most_s: float = 5.0  # of what an ingest service asks for: its spool may have room sooner


# Of blobs: each is as large as a thousand readings, and may have to go to another machine.
MEDIA_LIMITS = Limits(
    window_messages=256, window_bytes=64 * 1024 * 1024, batch_messages=16, batch_bytes=8 * 1024 * 1024,
    answer_timeout_s=60.0,
)  # fmt: skip


def split_urls(text: str) -> dict[str, str]:
    """Read `service=url,service=url`.

    Raises:
        ValueError: an entry is not of that form.
    """
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        service, equals, url = entry.partition("=")
        if not equals or not url.startswith(("http://", "https://")):
            raise ValueError(f"not service=url: {entry!r}")
        found[service.strip()] = url.strip()
    return found
