"""The command line: `headwater sim run|verify ...`. Exit 0 = every --fail-if held, 1 = not, 2 = bad arguments."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from simulators import scenario, sparkplug
from simulators.commander import Orders
from simulators.conditions import NEED_VERIFY, Condition, parse_conditions
from simulators.control import Answers
from simulators.crew import WorkerError
from simulators.file_limit import raise_file_limit
from simulators.flags import BAD_ARGUMENTS, DEFAULT_FAIL_IF, VERSIONS, Parser, add_flags, add_verify_flags
from simulators.options import Options
from simulators.platform_api import PlatformError
from simulators.recheck import recheck
from simulators.report import publish_report
from simulators.squad import make_rhythms
from simulators.units import parse_address
from wire import topics

OK, FAILED, INTERRUPTED = 0, 1, 130
_MQTT_PORT, _MQTTS_PORT = 1883, 8883
_DEVICES, _DURATION_S = 100, 60.0


class UsageError(ValueError):
    """Arguments that do not go together; the text is one line for the person at the terminal."""


def add_commands(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Mount `sim` below a command of commands."""
    configure(subparsers.add_parser("sim", help="the device simulator"))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their flags."""
    commands = parser.add_subparsers(dest="sim_command", required=True, parser_class=Parser, metavar="run|verify")
    run_parser = commands.add_parser("run", help="run a fleet of simulated devices")
    add_flags(run_parser)
    add_verify_flags(commands.add_parser("verify", help="verify once more what a run has kept in a ledger"))


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; gives the exit code."""
    return _run(args) if args.sim_command == "run" else _verify(args)


def _run(args: argparse.Namespace) -> int:
    try:
        options = to_options(args)
        raise_file_limit(-(-options.devices // options.processes))
    except ValueError as error:
        print(f"headwater sim run: {error}", file=sys.stderr)
        return BAD_ARGUMENTS
    try:
        return OK if publish_report(_execute(options), options.report, options.fail_if) else FAILED
    except (PlatformError, WorkerError, OSError) as error:
        print(f"headwater sim run: {error}", file=sys.stderr)
        return FAILED
    except (asyncio.CancelledError, KeyboardInterrupt):
        return OK if options.duration_s is None else INTERRUPTED


def _verify(args: argparse.Namespace) -> int:
    conditions = parse_conditions(DEFAULT_FAIL_IF) if args.fail_if is None else args.fail_if
    token_file = args.token_file or _default_token_file()
    try:
        report = asyncio.run(recheck(args.ledger, args.url, token_file, args.ca, args.drain_timeout))
    except ValueError as error:
        print(f"headwater sim verify: {error}", file=sys.stderr)
        return BAD_ARGUMENTS
    except (PlatformError, OSError) as error:
        print(f"headwater sim verify: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return OK if publish_report(report, args.report, conditions) else FAILED


def main(argv: list[str] | None = None) -> int:
    """Entry of `python -m simulators`; gives the exit code."""
    parser = Parser(prog="headwater sim", description="The device simulator.")
    configure(parser)
    return run(parser.parse_args(argv))


def to_options(args: argparse.Namespace) -> Options:
    """Check the arguments.

    Raises:
        ValueError: one line that names the flag at fault.
    """
    mqtt, is_tls = _broker(args.mqtt)
    scenarios = scenario.load_all(args.scenario.split(","))
    devices, duration_s = _size(args, scenarios)
    orders = _orders(args, scenarios)
    settings = {name: _plain(value) for name, value in vars(args).items() if name in _SETTINGS}
    prefix = f"sim-{args.seed}-{int(time.time()):x}-" if args.prefix is None else args.prefix
    options = Options(
        **{name: getattr(args, name) for name in _AS_GIVEN},
        devices=devices,
        rate_hz=1000 / args.interval_ms if args.interval_ms else args.rate,
        duration_s=duration_s,
        ramp_hz=1000 / args.ramp_interval_ms if args.ramp_interval_ms else args.ramp,
        version=VERSIONS[args.version],
        topic=args.topic or _topic(args.protocol),
        window=args.inflight,
        keepalive_s=args.keepalive,
        mqtt=mqtt,
        mqtt_tls=is_tls,
        token_file=args.token_file or _default_token_file(),
        scenarios=scenarios,
        orders=orders,
        prefix=prefix,
        drain_s=args.drain_timeout,
        fail_if=_conditions(args, orders),
        settings=settings | {"prefix": prefix, "devices": devices, "duration": duration_s},
    )
    _check(options)
    return options


def _size(args: argparse.Namespace, scenarios: Sequence[scenario.Scenario]) -> tuple[int, float | None]:
    """Give number of devices and duration: from the flags, else from the scenarios, else 100 and a minute."""
    counted = sum(each.devices or 0 for each in scenarios)
    lasting = max((each.duration_s or 0.0 for each in scenarios), default=0.0)
    duration_s = args.duration if args.duration is not None else lasting or _DURATION_S
    return args.devices or counted or _DEVICES, None if args.forever else duration_s


def _orders(args: argparse.Namespace, scenarios: Sequence[scenario.Scenario]) -> Orders:
    """Give what is sent to the fleet: from the flags, else what the scenarios say together."""
    said = [each.orders for each in scenarios]
    return Orders(
        args.send_commands or sum(each.commands_hz for each in said),
        args.send_desired or sum(each.desired_hz for each in said),
        args.command_deadline or min(each.deadline_s for each in said),
    )


# Flags that are an option of the same name.
_AS_GIVEN = (
    *("processes", "transport", "protocol", "qos", "size", "batch", "outbox", "url", "ca", "register"),
    *("type", "credentials", "seed", "faults", "answers", "firmware", "verify", "ledger", "report", "metrics_port"),
)
# Flags that the report repeats.
_SETTINGS = frozenset(
    {
        *("devices", "rate", "interval_ms", "duration", "forever", "ramp", "ramp_interval_ms", "processes"),
        *("transport", "protocol", "qos", "version", "size", "batch", "inflight", "outbox", "url", "mqtt"),
        *("scenario", "type", "faults", "verify", "drain_timeout"),
        *("answers", "firmware", "send_commands", "send_desired", "command_deadline"),
    }
)


def _topic(protocol: str) -> str:
    if protocol == sparkplug.SPARKPLUG:
        return sparkplug.topic("NDATA", "%i")
    return topics.media("%i", "sim") if protocol == "media" else topics.telemetry("%i", protocol)


def _check(options: Options) -> None:
    if options.verify and (not options.register or options.duration_s is None):
        raise UsageError("--verify goes with neither --no-register nor --forever")
    if options.transport == "mqtt" and options.batch > 1:
        raise UsageError("--batch is for --transport http")
    _check_protocol(options)
    if options.transport == "http" and not options.register:
        raise UsageError("--no-register is for --transport mqtt")
    _check_control(options)
    if options.duration_s == 0:
        raise UsageError("--duration is zero")
    if options.processes > options.devices:
        raise UsageError(f"--processes {options.processes} is more than the {options.devices} devices")
    make_rhythms(options, options.groups)
    _check_names(options)


def _check_protocol(options: Options) -> None:
    if options.protocol == sparkplug.SPARKPLUG and options.transport != "mqtt":
        raise UsageError("--protocol sparkplug is for --transport mqtt")
    if options.protocol != "json" and options.batch > 1:
        raise UsageError("--batch goes as NDJSON, with --protocol json only")
    if options.protocol == "media" and options.transport == "mqtt" and options.verify:
        raise UsageError("--verify finds readings by their time, which snapshots say over --transport http only")


def _check_control(options: Options) -> None:
    groups = options.groups
    does_control = any(options.answers_of(each) or options.firmware_of(each) for each in groups)
    if does_control and (options.transport, options.qos) != ("mqtt", 1):
        raise UsageError("commands and twins (--answer-commands, --firmware) are for --transport mqtt with --qos 1")
    if does_control and options.protocol == sparkplug.SPARKPLUG:
        raise UsageError("commands and twins are not for --protocol sparkplug")
    orders = options.orders
    if (orders.commands_hz or orders.desired_hz) and (not options.register or options.duration_s is None):
        raise UsageError("--send-commands and --send-desired go with neither --no-register nor --forever")


def _check_names(options: Options) -> None:
    longest = f"{options.prefix}{max((group.name for group in options.groups), key=len)}-{options.devices:02d}"
    if not topics.is_device_id(longest):
        raise UsageError(
            f"--prefix makes device ids like {longest!r}: 1 to 64 of A-Z a-z 0-9 _ . -, not beginning with a sign"
        )
    if urlsplit(options.url).scheme not in {"http", "https"} or not urlsplit(options.url).hostname:
        raise UsageError(f"--url is not an http(s) URL: {options.url!r}")
    if options.ca is not None and not options.ca.is_file():
        raise UsageError(f"--ca: no such file: {options.ca}")
    for flag, path in (("--report", options.report), ("--ledger", options.ledger)):
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"{flag}: no such folder: {path.parent}")


def _conditions(args: argparse.Namespace, orders: Orders) -> tuple[Condition, ...]:
    conditions: tuple[Condition, ...] | None = args.fail_if
    if conditions is None:
        expected = DEFAULT_FAIL_IF + (",commands.lost>0" if orders.commands_hz else "")
        return parse_conditions(expected) if args.verify else ()
    for condition in conditions:
        if condition.name in NEED_VERIFY and not args.verify:
            raise UsageError(f"--fail-if {condition.text} needs --verify")
    return conditions


def _broker(text: str) -> tuple[tuple[str, int], bool]:
    scheme, sign, address = text.rpartition("://")
    if sign and scheme not in {"mqtt", "mqtts"}:
        raise UsageError(f"--mqtt is not an mqtt(s) address: {text!r}")
    is_tls = scheme == "mqtts"
    try:
        return parse_address(address, _MQTTS_PORT if is_tls else _MQTT_PORT), is_tls
    except ValueError as error:
        raise UsageError(f"--mqtt: {error}") from error


def _default_token_file() -> Path:
    return Path(os.environ.get("HEADWATER_DATA") or "data") / "secrets" / "operator.token"


def _execute(options: Options) -> dict[str, Any]:
    import uvloop

    from simulators.run import Run

    async def execute() -> dict[str, Any]:
        return await Run(options).execute()

    return uvloop.run(execute())


def _plain(value: Any) -> Any:
    if isinstance(value, Answers):
        return asdict(value)
    return str(value) if isinstance(value, Path) else value
