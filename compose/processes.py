"""Which processes make an installation, how each is started, and in which order: the one table of them all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from compose import autosave, broker, certificate, gateway
from compose.child import Spec, python
from compose.config import LOOPBACK, UpConfig, join, near
from compose.credentials import Secrets
from compose.folder import Folder, StartError
from ingest.protocols import SERVICES

INNER = ("devices", "ingest-json", "writer", "bridge", broker.MEDIA_BRIDGE, "dashboard")
ON_DEMAND = tuple(f"ingest-{service}" for service in SERVICES[1:])  # a protocol nobody speaks costs nothing
# Those that have to do without a message, once they keep something: media is shown and goes when its time is over, and
# nodes whose sessions are kept are sent commands.
AT_ONCE = {"ingest-lorawan": "ingest/lorawan.db", "ingest-media": "media", "ingest-sparkplug": "ingest/sparkplug.db"}
THINGSBOARD = "thingsboard-mqtt"  # runs where it has a port
DEMO_SCENARIOS = "greenhouse,cold-chain,pump"
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/sbin:/bin"
GATEWAY_STAGE, DOOR_STAGE, CORE_STAGE, BROKER_STAGE = 4, 3, 2, 0
_CLOCK = re.compile(r"^\d{9,}: ")
_ROUTINE = re.compile(r"New (client connected|connection)|Client \S+ (closed|disconnected)|be run as root", re.ASCII)
_URGENT = re.compile(r"(error|warning|unable|dropped|denied|refused|fail)", re.IGNORECASE)
_REFUSAL = re.compile(r"^Client .* disconnected, not authorised", re.ASCII)


@dataclass(slots=True, frozen=True)
class Plan:
    """Everything that is decided before the first process starts."""

    folder: Folder
    config: UpConfig
    secrets: Secrets
    ports: Mapping[str, int]  # inner ones, "gateway", "mqtt"
    environ: Mapping[str, str]  # of the supervisor itself
    shows_text: bool  # the processes write readable lines, not JSON

    @property
    def mqtt(self) -> str:
        """Address of the broker as this machine reaches it."""
        return join(self.config.near_bind, self.ports["mqtt"])

    @property
    def near_url(self) -> str:
        """Base URL of the gateway as this machine reaches it."""
        return gateway.near_url(self.config, self.ports)

    @property
    def url(self) -> str:
        """Base URL for people."""
        scheme = "https" if self.config.has_tls else "http"
        return f"{scheme}://{join(near(self.config.bind), self.ports['gateway'])}"

    def inner_url(self, name: str) -> str:
        """Base URL of a service's own port."""
        return f"http://{LOOPBACK}:{self.ports[name]}"


def specs(plan: Plan) -> list[Spec]:
    """Write the configuration files and give the processes in the order of their start."""
    services = [
        _service(plan, "devices", "serve", "devices", stage=CORE_STAGE, broker_user="devices"),
        _service(plan, "ingest-json", "serve", "ingest", "--protocol", "json", stage=CORE_STAGE),
        *(_on_demand(plan, name) for name in ON_DEMAND),
        _service(plan, "writer", "writer", stage=CORE_STAGE, broker_user="writer"),
        *(
            _service(plan, name, "bridge", stage=DOOR_STAGE, broker_user=name)
            for name in (*broker.bridges(plan.folder, plan.config), broker.MEDIA_BRIDGE)
        ),
        *_thingsboard(plan),
        _service(plan, "dashboard", "serve", "dashboard", stage=DOOR_STAGE, broker_user="dashboard"),
    ]
    return [_broker(plan), *services, _gateway(plan), *_demo(plan)]


def find_program(name: str) -> str:
    """Find a system program, also in the folders that an ordinary user's PATH leaves out.

    Raises:
        StartError: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)
    if found is None:
        raise StartError(f"{name} is not installed; on Debian: apt-get install {name} (./run does it by itself)")
    return found


def environment(plan: Plan, **own: str) -> dict[str, str]:
    """Give the environment of a service: the supervisor's, and where everything is.

    What is set here wins over a variable of the same name and over its `_FILE`.
    """
    common = {
        "DATA": str(plan.folder.root),
        "HOST": LOOPBACK,
        "STORE": plan.config.store,
        "REGISTRY": plan.config.registry,
        "BROKER": plan.mqtt,
        "DEVICES_URL": plan.inner_url("devices"),
        "INGEST_URL": plan.inner_url("ingest-json"),
        "LOG_LEVEL": plan.config.log_level,
        "LOG_STYLE": "text" if plan.shows_text else "json",
        "SERVICES_FILE": str(plan.secrets.services_file),
    } | own
    env = dict(plan.environ)
    for name in common:
        bare = name.removesuffix("_FILE")
        env.pop(f"HEADWATER_{bare}", None)
        env.pop(f"HEADWATER_{bare}_FILE", None)
    env |= {f"HEADWATER_{name}": value for name, value in common.items()}
    env.setdefault("MALLOC_ARENA_MAX", "2")  # glibc keeps an arena per thread otherwise: 5-10 MB per service
    env.setdefault(
        "MALLOC_MMAP_THRESHOLD_", "262144"
    )  # larger blocks go back at once: it would learn to keep them, 40 MB
    return env


def _more_settings(plan: Plan, name: str) -> dict[str, str]:
    """Give what only one process is told: the registry alone knows the first secrets and feeds the broker's files."""
    pid_file = {"BROKER_PID_FILE": str(plan.folder.run / "broker.pid")}
    if name == "devices":
        return pid_file | {
            "BROKER_PASSWD_FILE": str(plan.folder.broker / "devices.passwd"),
            "BROKER_ACL_FILE": str(plan.folder.broker / "devices.acl"),
            "BROKER_SERVICES_ACL_FILE": str(plan.folder.broker / "services.acl"),
            "BROKER_CA_FILE": str(plan.folder.broker / "ca.pem"),
            "BROKER_CRL_FILE": str(plan.folder.broker / "crl.pem"),
            "BROKER_SOCKET": str(plan.folder.run / "broker.sock"),
            "BROKER_SERVICES_FILE": str(plan.folder.broker / "services.passwd"),
            "CONTROL_PASSWORD_FILE": str(plan.secrets.broker_token_file("control")),
            "OPERATOR_TOKEN_FILE": str(plan.folder.secrets / "operator.token"),
            "REGISTRY_KEY_FILE": str(plan.folder.secrets / "registry.key"),
            "ADMIN_HASH_FILE": str(plan.folder.secrets / "admin.hash"),
        }
    if name == "ingest-json":
        return {"GATEWAY_SHED_FILE": str(gateway.shed_file(plan.folder))}
    if name == broker.MEDIA_BRIDGE:
        return pid_file | {
            "BROKER_SESSION_FILE": str(plan.folder.broker / f"{name}.session"),
            "BRIDGE_CARRIES": "media",
            "INGEST_URL": plan.inner_url("ingest-media"),
        }
    if name.startswith("bridge"):
        return pid_file | {
            "BROKER_SESSION_FILE": str(plan.folder.broker / f"{name}.session"),
            "BRIDGE_TOPICS_FILE": str(plan.folder.broker / f"{name}.topics"),
            "BRIDGES": str(plan.config.bridges),
            "BRIDGE_NUMBER": name[7:] or "1",
            "INGEST_URLS": ",".join(f"{each[7:]}={plan.inner_url(each)}" for each in ON_DEMAND),
        }
    return {}


def _service(plan: Plan, name: str, *arguments: str, stage: int, broker_user: str = "") -> Spec:
    own = {"PORT": str(plan.ports[name]), "SERVICE_TOKEN_FILE": str(plan.secrets.service_token_file(name))}
    own |= _more_settings(plan, name)
    if broker_user:
        own["BROKER_USERNAME"] = f"_{broker_user}"
        own["BROKER_PASSWORD_FILE"] = str(plan.secrets.broker_token_file(broker_user))
    return Spec(
        name,
        python("-P", "-m", "compose", *arguments),
        environment(plan, **own),
        ready=f"{plan.inner_url(name)}/readyz",
        after=("broker",),
        stage=stage,
    )


def _on_demand(plan: Plan, name: str) -> Spec:
    made = _service(plan, name, "serve", "ingest", "--protocol", name.removeprefix("ingest-"), stage=CORE_STAGE)
    if name in AT_ONCE and (plan.folder.root / AT_ONCE[name]).exists():
        return made
    return replace(made, listen=f"{LOOPBACK}:{plan.ports[name]}", is_vital=False)


def _thingsboard(plan: Plan) -> list[Spec]:
    if plan.config.thingsboard_port is None:
        return []
    own = {
        "PORT": str(plan.ports[THINGSBOARD]),
        "THINGSBOARD_BIND": plan.config.bind,
        "THINGSBOARD_PORT": str(plan.ports["thingsboard"]),
        "INGEST_URL": plan.inner_url("ingest-thingsboard"),
        "SERVICE_TOKEN_FILE": str(plan.secrets.service_token_file("ingest-thingsboard")),
    }
    if plan.config.has_tls:
        own |= {"TLS_CERT": str(plan.config.tls_cert), "TLS_KEY": str(plan.config.tls_key)}
    return [
        Spec(
            THINGSBOARD,
            python("-P", "-m", "compose", THINGSBOARD),
            environment(plan, **own),
            ready=f"{plan.inner_url(THINGSBOARD)}/readyz",
            after=("devices",),
            stage=DOOR_STAGE,
            tend=certificate.rereading(plan.folder) if plan.config.tls else None,
        )
    ]


def _broker(plan: Plan) -> Spec:
    path = broker.write(plan.folder, plan.config, plan.ports["mqtt"])
    tend = autosave.tend(path, broker.state_file(plan.folder), plan.config.broker_autosave)
    tend = certificate.together(tend, certificate.restarting(plan.folder))
    return Spec(
        "broker",
        [find_program("mosquitto"), "-c", str(path)],
        dict(plan.environ),
        cwd=plan.folder.root,  # the paths in its configuration are relative
        ready=f"tcp://{plan.mqtt}",
        stage=BROKER_STAGE,
        filter=broker_filter(plan.config.log_level),
        tend=certificate.together(tend, certificate.rereading(plan.folder)) if plan.config.tls else tend,
    )


def _gateway(plan: Plan) -> Spec:
    path, tend = gateway.write(plan.folder, plan.config, plan.ports), None
    if plan.config.tls:
        renewing = certificate.renewing(plan.folder, plan.config, plan.environ)
        tend = certificate.together(renewing, certificate.rereading(plan.folder))
    return Spec(
        "gateway",
        [find_program("nginx"), "-e", "stderr", "-p", f"{plan.folder.gateway}/", "-c", str(path)],
        dict(plan.environ),
        cwd=plan.folder.root,
        ready=f"{plan.near_url}/livez",
        after=("dashboard", "devices", "ingest-json"),
        stage=GATEWAY_STAGE,
        filter=gateway.hide_secrets,
        tend=tend,
    )


def _demo(plan: Plan) -> list[Spec]:
    if not plan.config.demo:
        return []
    argv = python(
        "-P", "-m", "compose", "sim", "run", "--forever",
        "--devices", str(plan.config.demo),
        "--scenario", DEMO_SCENARIOS,
        "--prefix", "demo-",
        "--rate", "1/s",
        "--credentials", str(plan.folder.secrets / "demo.json"),
        "--url", plan.near_url,
        "--mqtt", plan.mqtt,
        "--token-file", str(plan.folder.secrets / "operator.token"),
    )  # fmt: skip
    everybody = ("broker", *INNER, "gateway")
    stage, is_quiet = GATEWAY_STAGE + 1, plan.config.log_level in ("warning", "error")

    def choose(line: str) -> str | None:
        return None if is_quiet else line  # its progress and final report; its last words are told when it dies

    return [Spec("demo", argv, environment(plan), after=everybody, stage=stage, is_vital=False, filter=choose)]


def broker_filter(level: str) -> Callable[[str], str | None]:
    """Choose the lines of mosquitto that a person wants: at `warning` trouble, at `info` not every connection."""

    def choose(line: str) -> str | None:
        text = _CLOCK.sub("", line)
        if level == "debug":
            return text
        if _ROUTINE.search(text) and not _REFUSAL.search(text):
            return None
        return text if level == "info" or _URGENT.search(text) else None

    return choose
