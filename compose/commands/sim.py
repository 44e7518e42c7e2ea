"""`headwater sim`: the device simulator, which also runs without the rest of the platform."""

from __future__ import annotations

from typing import Any

from simulators import cli


def configure(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("sim", help="simulate a fleet of devices")
    cli.configure(parser)
    parser.set_defaults(run=cli.run)
