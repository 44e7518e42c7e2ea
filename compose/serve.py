"""One process of the platform in the foreground, the same way for the supervisor, a container or a unit."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from chassis import logs

if TYPE_CHECKING:
    from collections.abc import Callable

GUNICORN_CONF = Path(__file__).with_name("gunicorn.conf.py")
APPS = {
    "devices": "devices.app:create_app()",
    "ingest": "ingest.app:create_app()",
    "dashboard": "dashboard_api.app:create_app()",
}
DEFAULT_PORTS = {"devices": 8101, "ingest": 8102, "dashboard": 8103}
PROCESSES = {
    "bridge": "ingest.bridge.process:main",
    "writer": "ingest.writer.process:main",
    "thingsboard-mqtt": "ingest.thingsboard.process:main",
}


class ServeConfig(BaseModel):
    """What gunicorn needs to know of a service's settings."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    service: Literal["devices", "ingest", "dashboard"]
    protocol: str = Field(default="json", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    data: Path = Path("./data")
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)  # 0: the service's usual one
    listen_fd: int | None = Field(default=None, ge=3)  # a socket that listens already, instead of host and port
    workers: int = Field(default=1, ge=1, le=64)
    threads: int = Field(default=16, ge=1, le=256)
    log_level: logs.Level = "info"
    log_style: logs.Style = "auto"

    @property
    def processes(self) -> int:
        """Number of worker processes: one for protocols that are decoded in order, and one for the dashboard.

        The dashboard's feed is one connection to the broker: a second worker would come as the same MQTT client, and
        each would throw out the other once a second.
        """
        if self.service == "ingest":
            from ingest.protocols import served_by

            return 1 if any(protocol.host for protocol in served_by(self.protocol).values()) else self.workers
        return 1 if self.service == "dashboard" else self.workers

    @property
    def name(self) -> str:
        """Name of the process."""
        return f"ingest-{self.protocol}" if self.service == "ingest" else self.service


def serve(service: str, protocol: str = "json") -> int:
    """Run an HTTP service under gunicorn until SIGTERM; exit code 2 for one that is not there yet."""
    if service not in APPS:
        print(f"headwater: the {service} service is not part of this version yet", file=sys.stderr)
        return 2
    os.environ["HEADWATER_SERVICE"] = service
    if service == "ingest":
        from ingest.protocols import SERVICES

        if protocol not in SERVICES:
            print(f"headwater: no ingest service {protocol!r}; there is {', '.join(SERVICES)}", file=sys.stderr)
            return 2
        os.environ["HEADWATER_PROTOCOL"] = protocol
    from gunicorn.app.wsgiapp import WSGIApplication

    sys.argv = ["gunicorn", "-c", str(GUNICORN_CONF), APPS[service]]
    WSGIApplication("%(prog)s", prog="headwater serve").run()
    return 0


def run_process(name: str) -> int:
    """Run a process that is no web service until SIGTERM."""
    module, _, function = PROCESSES[name].partition(":")
    main = cast("Callable[[], int | None]", getattr(importlib.import_module(module), function))
    return main() or 0
