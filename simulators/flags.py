"""The flags of `headwater sim`, each with its form; what goes together is checked in `simulators.cli`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from simulators import scenario
from simulators.conditions import parse_conditions
from simulators.control import Answers, parse_answers
from simulators.faults import parse_faults
from simulators.payloads import FORMATS
from simulators.units import parse_duration, parse_rate

BAD_ARGUMENTS = 2
DEFAULT_FAIL_IF = "lost>0,duplicates>0"  # with --verify
VERSIONS = {"4": 4, "3.1.1": 4, "5": 5}


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_ARGUMENTS, f"{self.prog}: {message}\n")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add all flags of a run."""
    load = parser.add_argument_group("load (short flags as in emqtt-bench)")
    _add_load(load)
    _add_messages(load)
    _add_target(parser.add_argument_group("where to"))
    _add_fleet(parser.add_argument_group("fleet"))
    _add_control(parser.add_argument_group("commands and twins (mqtt, QoS 1)"))
    _add_verdict(parser.add_argument_group("verdict"))


def add_verify_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verification of a ledger that was kept."""
    parser.add_argument("ledger", type=Path, metavar="LEDGER", help="file that `sim run --ledger` has written")
    _add_platform(parser.add_argument_group("where to"))
    _add_outcome(parser.add_argument_group("verdict"))


def _add_load(group: argparse._ArgumentGroup) -> None:
    count = _at_least(1)
    group.add_argument("-c", "--devices", type=count, metavar="N", help="devices (100, or what the scenario says)")
    group.add_argument(
        "--rate",
        type=_form(parse_rate),
        metavar="R",
        help="readings of each device: 1/s, 10/m (1/s, or the scenario's)",
    )
    group.add_argument("-I", "--interval-ms", type=count, metavar="MS", help="time between readings, instead of --rate")
    group.add_argument(
        "--duration",
        type=_form(parse_duration),
        metavar="T",
        help="each device sends for: 60s, 5m (60s, or the scenario's phases)",
    )
    group.add_argument(
        "--forever", action="store_true", help="until stopped; waits for the platform instead of giving up"
    )
    group.add_argument(
        "-R", "--ramp", type=_form(parse_rate), default=50.0, metavar="R", help="devices started: 50/s (50/s)"
    )
    group.add_argument(
        "-i", "--ramp-interval-ms", type=count, metavar="MS", help="time between starts, instead of --ramp"
    )
    group.add_argument(
        "--processes", type=count, default=1, metavar="N", help="share the devices out over so many processes (1)"
    )


def _add_messages(group: argparse._ArgumentGroup) -> None:
    count, number = _at_least(1), _at_least(0)
    group.add_argument(
        "-s", "--size", type=number, default=0, metavar="BYTES", help="pad payloads to this size (as they are)"
    )
    group.add_argument(
        "--batch", type=count, default=1, metavar="N", help="readings per request, as NDJSON; http only (1)"
    )
    group.add_argument(
        "-F",
        "--inflight",
        type=count,
        default=100,
        metavar="N",
        help="unacknowledged messages of a device; mqtt only (100)",
    )
    group.add_argument(
        "--outbox",
        type=number,
        metavar="N",
        help="acknowledged readings a device keeps until the acks topic covers them; 0 = none; mqtt only (up to 500)",
    )


def _add_target(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--transport", choices=["mqtt", "http"], default="mqtt", help="mqtt or http (mqtt)")
    group.add_argument("--protocol", choices=sorted(FORMATS), default="json", help="the payloads' (json)")
    group.add_argument("-q", "--qos", type=int, choices=[0, 1], default=1, help="0 or 1; mqtt only (1)")
    group.add_argument(
        "-V", "--version", choices=sorted(VERSIONS), default="4", help="MQTT version: 4 (= 3.1.1) or 5 (4)"
    )
    group.add_argument(
        "-t", "--topic", help="topic, %%i = device id (devices/%%i/telemetry, the protocol's name behind it)"
    )
    group.add_argument(
        "-k", "--keepalive", type=_at_least(0), default=30, metavar="S", help="MQTT keep-alive, 0 = none (30)"
    )
    group.add_argument(
        "--mqtt",
        default="127.0.0.1:1883",
        metavar="HOST:PORT",
        help="broker; mqtts://host:port for TLS (127.0.0.1:1883)",
    )
    _add_platform(group)


def _add_platform(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--url", default="http://127.0.0.1:8080", help="gateway (http://127.0.0.1:8080)")
    group.add_argument("--ca", type=Path, metavar="FILE", help="authority to trust for https and mqtts, PEM")
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="F",
        help="operator token (secrets/operator.token in $HEADWATER_DATA or ./data)",
    )


def _add_fleet(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--scenario",
        default="plain",
        metavar="S,...",
        help=f"{', '.join(scenario.NAMES)}, or a FILE.toml; several take turns (plain)",
    )
    group.add_argument("--prefix", help="start of the device ids; default: a fresh one from seed and time")
    group.add_argument("--type", help="device type to register as, made when missing (the scenario's)")
    group.add_argument(
        "--credentials", type=Path, metavar="FILE", help="keep the devices' credentials here and use them again"
    )
    group.add_argument(
        "--no-register", dest="register", action="store_false", help="connect without credentials (a bare broker)"
    )
    group.add_argument("--seed", type=int, default=1, help="same seed, same readings and faults (1)")
    faults_help = "drop=1%%,dup=1%%,late=5%%,malformed=0.1%%,clock=0.1%%,power=0.1%%,storm=30s (none)"
    group.add_argument("--faults", type=_form(parse_faults), default={}, metavar="F=P,...", help=faults_help)


def _add_control(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--answer-commands",
        dest="answers",
        nargs="?",
        const=Answers(),
        type=_form(parse_answers),
        metavar="A=P,...",
        help="answer commands: failed=5%%,late=1%%,never=1%%, all others succeed (the scenario's)",
    )
    group.add_argument("--firmware", metavar="V", help="have a twin that reports this version (the scenario's)")
    group.add_argument("--send-commands", type=_form(parse_rate), metavar="R", help="to the fleet: 20/s (none)")
    group.add_argument("--send-desired", type=_form(parse_rate), metavar="R", help="changes of twins: 5/s (none)")
    group.add_argument(
        "--command-deadline", type=_form(parse_duration), metavar="T", help="of the commands that are sent (30s)"
    )


def _add_verdict(group: argparse._ArgumentGroup) -> None:
    count = _at_least(1)
    group.add_argument("--verify", action="store_true", help="compare what was acknowledged with what can be queried")
    group.add_argument(
        "--ledger", type=Path, metavar="FILE", help="keep the ledger of sent and acknowledged readings here"
    )
    group.add_argument(
        "--metrics-port", type=count, metavar="PORT", help="live figures for Prometheus on 127.0.0.1 (off)"
    )
    _add_outcome(group)


def _add_outcome(group: argparse._ArgumentGroup) -> None:
    drain_help = "longest wait for acknowledgements, and again for the platform to store (60s)"
    group.add_argument("--drain-timeout", type=_form(parse_duration), default=60.0, metavar="T", help=drain_help)
    group.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON; - = standard output")
    fail_help = f"exit 1 if any comes true: lost>0,ack_p99>500ms ({DEFAULT_FAIL_IF} with --verify)"
    group.add_argument("--fail-if", type=_form(parse_conditions), metavar="C,...", help=fail_help)


def _form(parse: Any) -> Any:
    """Make argparse show what a parser says instead of naming the parser."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _at_least(least: int) -> Any:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"not a number of {least} or more: {text!r}")
        return int(text)

    return convert
