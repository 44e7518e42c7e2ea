"""Settings of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from chassis import logs, settings
from chassis.services import ServiceList
from devices.broker import management
from devices.oidc.config import OidcSettings


class DevicesConfig(OidcSettings):
    """What the registry can be told; read once at start."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    data: Path = Path("./data")
    host: str = "127.0.0.1"
    port: int = Field(default=8101, ge=0, le=65_535)
    service_token: str = ""  # what this service shows to the others
    services: ServiceList = ""  # whose tokens it takes; empty: the own one, of all services
    log_style: logs.Style = "auto"
    log_level: logs.Level = "info"
    registry: str = "sqlite:"  # SQLAlchemy URL; `sqlite:` = DATA/registry.db
    ingest_url: str = "http://127.0.0.1:8102"  # tries new versions of device types on real data
    registry_key: str = ""  # seals the keys of enrolment groups in the database; empty: there can be none
    broker: settings.Address = "127.0.0.1:1883"  # its connections tell presence; empty: no presence by MQTT
    broker_username: str = "_devices"
    broker_password: str = ""
    control_username: str = "_control"  # at the broker: twins and commands; no password: these go over HTTP only
    control_password: str = ""
    broker_auth: Literal["mosquitto-file", "http-hooks", "dynsec"] = "mosquitto-file"  # docs/brokers.md
    broker_hook_token: str = ""  # a broker that asks by HTTP shows it
    broker_management: str = ""  # its management API, by which standing connections are cut: emqx+http://host:port
    broker_management_token: str = ""  # `name:secret` there
    broker_passwd_file: str = ""  # the broker's password file, written from the registry; empty: the broker is not ours
    broker_ca_file: str = ""  # our authority's certificate, for the listener that takes certificates
    broker_crl_file: str = ""  # its revocation list
    broker_socket: str = ""  # of a mosquitto here: standing connections of revoked certificates are cut by it
    broker_services_file: str = ""  # password lines of the platform's own services, copied to its head
    broker_acl_file: str = ""  # its access list, where the topics that devices claim are written; empty: nowhere
    broker_services_acl_file: str = ""  # what is copied to its head: the rights of services and of any device
    broker_pid_file: str = ""  # pid of the broker that reads the file again on SIGHUP
    operator_token: str = ""  # becomes the admin token `bootstrap`
    admin_hash: str = ""  # werkzeug hash of the first operator's password
    twin_history: int = Field(default=100, ge=1, le=10_000)  # changes of each part of a twin that are remembered
    twin_history_days: float = Field(default=90.0, gt=0)
    command_window: int = Field(default=1, ge=1, le=100)  # commands of a device that are on their way at once
    command_queue: int = Field(default=100, ge=1, le=10_000)  # that have not ended
    command_days: float = Field(default=30.0, gt=0)  # how long those that ended are listed
    most_waiting: int = Field(default=5_000, ge=1, le=5_000)  # devices at once for commands and twins, in a process
    presence_days: float = Field(default=40.0, gt=0)  # how long its history is kept
    silence_s: float = Field(default=300.0, gt=0)  # an unconnected device unheard for so long is offline

    @property
    def is_asked(self) -> bool:
        """Tell whether the broker asks the registry by HTTP hooks."""
        return self.broker_auth == "http-hooks"

    @field_validator("broker_management")
    @classmethod
    def _check_management(cls, text: str) -> str:
        if text:
            management.read(text, "")
        return text
