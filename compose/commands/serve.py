"""`headwater serve`, `bridge`, `writer` and `thingsboard-mqtt`: one process in the foreground."""

from __future__ import annotations

import argparse
from typing import Any

from compose import serve


def configure(commands: Any) -> None:
    """Add the commands."""
    parser = commands.add_parser("serve", help="run one HTTP service in the foreground")
    parser.add_argument("service", choices=("devices", "ingest", "dashboard", "firmware"))
    parser.add_argument("--protocol", default="json", metavar="P", help="protocol of an ingest service (default json)")
    parser.set_defaults(run=lambda given: serve.serve(given.service, given.protocol))
    for name, help_text in (
        ("bridge", "run the MQTT bridge"),
        ("writer", "run the writer of the store"),
        ("thingsboard-mqtt", "run the MQTT door of ThingsBoard's devices"),
    ):
        process = commands.add_parser(name, help=f"{help_text} in the foreground")
        process.set_defaults(run=_run_process, process=name)


def _run_process(given: argparse.Namespace) -> int:
    return serve.run_process(given.process)
