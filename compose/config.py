"""Settings of `headwater up`: what a person may turn; everything inside is derived from these."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chassis import logs
from wire.media import DEFAULT_LIMIT_BYTES, DEFAULT_MQTT_LIMIT_BYTES, MAX_LIMIT_BYTES, MAX_MQTT_LIMIT_BYTES

DEMO_DEVICES = 20
LOOPBACK = "127.0.0.1"


class UpConfig(BaseModel):
    """Settings of the local installation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    data: Path = Path("./data")
    port: int = Field(default=8080, ge=0, le=65_535)  # the gateway's; 0 picks a free one
    mqtt_port: int = Field(default=1883, ge=0, le=65_535)
    mqtts_port: int = Field(default=8883, ge=0, le=65_535)  # listens only with a certificate
    mqtt_cert_port: int = Field(default=8884, ge=0, le=65_535)  # takes certificates of devices; as mqtts_port
    # Of ThingsBoard's MQTT door, which is off without: most have no such device, and it would be one more open port.
    thingsboard_port: int | None = Field(default=None, ge=0, le=65_535)
    bind: str = Field(default=LOOPBACK, pattern=r"^[0-9A-Za-z.:-]{1,255}$")
    hosts: str = Field(default="", pattern=r"^[A-Za-z0-9._:\[\], -]{0,4096}$")  # names it is asked by; none: any
    demo: int = Field(default=DEMO_DEVICES, ge=0, le=10_000)
    bridges: int = Field(default=1, ge=1, le=8)  # processes that share the broker's messages
    broker_autosave: int = Field(default=100, ge=1, le=1_000_000)  # changes between two saves of the broker, at least
    media_limit_bytes: int = Field(default=DEFAULT_LIMIT_BYTES, ge=1_024, le=MAX_LIMIT_BYTES)  # of a blob over HTTP
    media_mqtt_limit_bytes: int = Field(default=DEFAULT_MQTT_LIMIT_BYTES, ge=1_024, le=MAX_MQTT_LIMIT_BYTES)
    store: str = Field(default="embedded:", pattern=r"^[^\x00-\x1f]+$")
    registry: str = Field(default="sqlite:", pattern=r"^[^\x00-\x1f]+$")
    tls: bool = False  # with a certificate of our own authority
    tls_names: str = ""  # further names and addresses for it, with commas
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_plaintext: bool = False
    log_level: logs.Level = "warning"
    log_style: logs.Style = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        if self.tls and self.tls_cert is not None:
            raise ValueError("tls makes a certificate of its own; tls_cert is for one that you have")
        if not is_loopback(self.bind) and not self.has_tls and not self.allow_plaintext:
            raise ValueError(
                f"--bind {self.bind} would offer passwords and data unencrypted beyond this machine; say --tls, or give"
                " --tls-cert and --tls-key, or say --allow-plaintext",
            )
        return self

    @property
    def has_tls(self) -> bool:
        """Tell whether there is a certificate, or will be."""
        return self.tls or self.tls_cert is not None

    @property
    def trusted_hosts(self) -> list[str]:
        """Give the hosts that requests may name, without ports: those given and this machine's; empty: any."""
        given = [name.strip().lower() for name in self.hosts.split(",") if name.strip()]
        near_names = [
            "localhost",
            LOOPBACK,
            "[::1]",
            *([] if self.bind in ("0.0.0.0", "::") else [join_host(self.bind)]),
        ]
        return list(dict.fromkeys(given + near_names)) if given else []

    @property
    def plain_mqtt_bind(self) -> str:
        """Address of the unencrypted MQTT listener: never beyond this machine when there is a certificate."""
        return LOOPBACK if self.has_tls and not self.allow_plaintext else self.bind

    @property
    def near_bind(self) -> str:
        """Address at which this machine reaches what is bound to `plain_mqtt_bind`."""
        return near(self.plain_mqtt_bind)


def is_loopback(host: str) -> bool:
    """Tell whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def near(host: str) -> str:
    """Give the address at which this machine reaches a listener bound to `host`."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)


def join(host: str, port: int) -> str:
    """Write `host:port`, with brackets round an IPv6 address."""
    return f"{join_host(host)}:{port}"


def join_host(host: str) -> str:
    """Write a host as it stands in an address: an IPv6 address with brackets."""
    return f"[{host}]" if ":" in host else host
