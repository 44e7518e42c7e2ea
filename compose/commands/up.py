"""`headwater up`: the whole installation in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import series
from chassis import settings
from compose import broker, certificate, credentials, ports, processes, procfs, state
from compose.commands.settings import misspelt
from compose.config import UpConfig, join
from compose.console import Console, open_console
from compose.credentials import Secrets
from compose.folder import Folder, StartError
from compose.processes import Plan
from compose.supervisor import Supervisor, clear_leftovers
from wire.declared import REFUSED


def configure(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("up", help="start everything and keep it running until ctrl-C")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of all state (default ./data)")
    parser.add_argument("--port", type=int, metavar="N", help="port of pages and HTTP (default 8080; 0 picks one)")
    parser.add_argument("--mqtt-port", type=int, metavar="N", help="port of MQTT (default 1883; 0 picks one)")
    parser.add_argument(
        "--thingsboard-port", type=int, metavar="N", help="port of ThingsBoard's MQTT (default none; 0 picks one)"
    )
    parser.add_argument("--bind", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--hosts", metavar="A,B", help="names that requests may be for (default any)")
    parser.add_argument("--bridges", type=int, metavar="N", help="bridges that share the broker's messages (default 1)")
    demo = parser.add_mutually_exclusive_group()
    demo.add_argument("--demo", type=int, metavar="N", help="number of simulated devices (default 20)")
    demo.add_argument("--no-demo", dest="demo", action="store_const", const=0, help="no simulated devices")
    parser.add_argument("--store", metavar="URL", help="time-series store (default embedded:)")
    parser.add_argument("--registry", metavar="URL", help="registry database (default sqlite:)")
    parser.add_argument(
        "--tls", action="store_const", const=True, help="HTTPS, and MQTT on ports 8883 and 8884, by our own authority"
    )
    parser.add_argument("--tls-names", metavar="A,B", help="further names and addresses for that certificate")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate: HTTPS, and MQTT on port 8883")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")
    parser.add_argument("--mqtts-port", type=int, metavar="N", help="port of MQTT with TLS (default 8883)")
    parser.add_argument("--mqtt-cert-port", type=int, metavar="N", help="port of MQTT with certificates (default 8884)")
    parser.add_argument(
        "--allow-plaintext", action="store_const", const=True, help="listen beyond this machine without TLS"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="default warning")
    parser.add_argument("--log-style", choices=("auto", "json", "text"), help="default auto: readable text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Start everything and stay until a signal."""
    overrides = {name: getattr(arguments, name, None) for name in UpConfig.model_fields}  # some have no option
    config = settings.load(UpConfig, overrides)
    folder = Folder(config.data)
    folder.prepare()
    folder.hold()
    console = open_console(config, has_no_colour=bool(os.environ.get("NO_COLOR")))
    try:
        return _run(config, folder, console, os.environ)
    finally:
        console.close()


def _run(config: UpConfig, folder: Folder, console: Console, environ: Mapping[str, str]) -> int:
    cleared = clear_leftovers(folder)
    if cleared:
        console.say(f"ended {cleared} processes that an earlier run had left behind", level="warning")
    for fault in misspelt():
        console.say(f"{fault} (headwater config show lists them)", level="warning")
    for entry, reason in REFUSED.items():
        console.say(f"refused the protocol {entry}: {reason}", level="warning")
    _check_programs()
    _check_databases(config)
    secrets = credentials.ensure(folder, (*broker.bridges(folder, config), broker.MEDIA_BRIDGE))
    config = certificate.ensure(folder, config, environ)
    chosen = _choose_ports(config, folder)
    plan = Plan(folder, config, secrets, chosen, environ, shows_text=config.log_style != "json")
    _raise_file_limit()
    shown = state.State(
        supervisor_pid=os.getpid(), boot_id=procfs.boot_id(), url=plan.url, near_url=plan.near_url, mqtt=plan.mqtt
    )
    supervisor = Supervisor(processes.specs(plan), folder, shown, console)
    welcomed: list[float] = []

    def welcome(seconds: float) -> None:
        welcomed.append(seconds)
        with suppress(OSError):  # `headwater up | head -1` has closed its end
            print(_welcome(plan, seconds), flush=True)

    code = asyncio.run(supervisor.run(welcome))
    if supervisor.failure:
        console.close()
        print(f"headwater: {supervisor.failure}", file=sys.stderr)
    if not welcomed and secrets.admin_password:  # it is kept nowhere: shown now or never
        print(f"the password of {credentials.ADMIN}, made at this first start: {secrets.admin_password}", flush=True)
    return code


def _check_programs() -> None:
    for program in ("mosquitto", "nginx"):
        processes.find_program(program)


def _check_databases(config: UpConfig) -> None:
    """Tell in one line what each service would tell in its own log, again and again."""
    series.check_url(config.store)
    scheme = config.registry.partition(":")[0]
    if scheme not in ("sqlite", "postgresql+psycopg"):
        raise StartError(f"--registry is sqlite: or postgresql+psycopg://..., not {scheme}:")
    if scheme != "sqlite" and find_spec("psycopg") is None:
        raise StartError("--registry postgresql+psycopg:// needs the Python package psycopg[binary] in .venv")


def _choose_ports(config: UpConfig, folder: Folder) -> dict[str, int]:
    inner = [*processes.INNER, *processes.ON_DEMAND, *broker.bridges(folder, config)[1:]]
    inner += [] if config.thingsboard_port is None else [processes.THINGSBOARD]
    inner += ["gateway-near"] if config.has_tls else []
    chosen = ports.choose(inner, folder.ports)
    for name, port, host, option in (
        ("gateway", config.port, config.bind, "--port"),
        ("mqtt", config.mqtt_port, config.plain_mqtt_bind, "--mqtt-port"),
        ("thingsboard", config.thingsboard_port, config.bind, "--thingsboard-port"),
    ):
        if port is None:
            continue
        chosen[name] = port or ports.pick(chosen.values(), host)
        ports.check_free(host, chosen[name], option)
    if chosen["gateway"] == chosen["mqtt"]:
        raise StartError(f"port {config.port} cannot serve both HTTP and MQTT; choose another with --mqtt-port")
    if chosen.get("thingsboard") in (chosen["gateway"], chosen["mqtt"]):
        raise StartError(f"port {config.thingsboard_port} is taken by --port or --mqtt-port; choose another")
    if config.has_tls:
        ports.check_free(config.bind, config.mqtts_port, "--mqtts-port")
        if broker.has_authority(folder):
            ports.check_free(config.bind, config.mqtt_cert_port, "--mqtt-cert-port")
    return chosen


def _raise_file_limit() -> None:
    """Let broker and gateway hold as many connections as the machine permits; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _welcome(plan: Plan, seconds: float) -> str:
    tool, which = _tool(), _which(plan.folder)
    rows = [("Pages", plan.url + "/"), ("Log in", _log_in(plan.secrets, tool, which)), ("MQTT", _mqtt(plan))]
    if plan.config.thingsboard_port is not None:
        rows.append(("ThingsBoard", _thingsboard(plan)))
    if plan.config.demo:
        rows.append(("Demo", f"{plan.config.demo} simulated devices stream (without them: --no-demo)"))
    else:
        rows.append(("Devices", f"add one with: {tool} device add ID{which}"))
    rows += [("Shell", f"{tool} status{which}"), ("Stop", "ctrl-C")]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {text}" for name, text in rows]
    return "\n".join(["", f"Headwater is ready ({seconds:.1f} s).", "", *lines, ""])


def _log_in(secrets: Secrets, tool: str, which: str) -> str:
    if secrets.admin_password:
        return f"{credentials.ADMIN}, with the password (shown only now, kept nowhere): {secrets.admin_password}"
    return (
        f"{credentials.ADMIN}, with the password printed at the first start"
        f" (set a new one: {tool} operator password {credentials.ADMIN}{which})"
    )


def _mqtt(plan: Plan) -> str:
    if not plan.config.has_tls:
        return join(plan.config.near_bind, plan.ports["mqtt"])
    secure = join(plan.config.bind, plan.config.mqtts_port)
    shown = f"{secure} with TLS; {join(plan.config.plain_mqtt_bind, plan.ports['mqtt'])} without"
    return f"{shown}; devices trust {plan.folder.tls_cert.with_name('ca.pem')}" if plan.config.tls else shown


def _thingsboard(plan: Plan) -> str:
    shown = f"MQTT on {join(plan.config.bind, plan.ports['thingsboard'])}{' with TLS' if plan.config.has_tls else ''}"
    return f"{shown}; the access token is a device's id and secret with a dot between"


def _tool() -> str:
    """Give the command line a person can paste to reach this program."""
    script = Path(sys.prefix, "bin", "headwater")
    if not script.exists():
        return "headwater"
    inside = os.path.relpath(script)
    return shlex.quote(inside if not inside.startswith("..") else str(script))


def _which(folder: Folder) -> str:
    """Give the option with which a person's next command means this folder, where one is needed."""
    return "" if folder.root == Path("data").absolute() else f" --data {shlex.quote(str(folder.root))}"
