"""The `headwater` command."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

# Each module of compose.commands adds its subcommands by `configure`. Servers need only their own: what is not asked
# for is not imported, which saves 60 ms and 5 MB in every process.
MODULES = {
    "up": ("up",),
    "status": ("status",),
    "serve": ("serve", "bridge", "writer", "thingsboard-mqtt"),
    "registry": ("device",),
    "types": ("type",),
    "gateways": ("gateway",),
    "topics": ("topic",),
    "protocols": ("protocol",),
    "jobs": ("job",),
    "rotations": ("rotation",),
    "finding": ("group",),
    "control": ("command", "twin"),
    "enrol": ("enrol",),
    "authority": ("ca",),
    "tenants": ("tenant", "usage", "ledger"),
    "audit": ("audit",),
    "access": ("token", "operator", "invitation"),
    "quarantine": ("quarantine",),
    "media": ("media",),
    "settings": ("config",),
    "doctor": ("doctor",),
    "sim": ("sim",),
}

PRIVATE_UMASK = 0o077  # what servers write (hashes, readings, addresses) is for their own user alone


class _Parser(argparse.ArgumentParser):
    """A wrong argument is told in one line; the usage is what `--help` is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; give its exit code."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # also while modules are still being imported
        return 130


def _main(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words[0] if words else "")
    if words and words[0] in (*MODULES["up"], *MODULES["serve"]):
        os.umask(PRIVATE_UMASK)
    arguments = parser.parse_args(words)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return 2
    from chassis.settings import SettingsError
    from compose.folder import StartError
    from wire.errors import HeadwaterError

    try:
        return int(arguments.run(arguments) or 0)
    except (SettingsError, StartError, HeadwaterError) as error:
        is_refused = isinstance(error, HeadwaterError) and error.code == "unauthorized"
        hint = "; the token is wrong, expired or revoked: give another with --token" if is_refused else ""
        print(f"headwater: {error}{hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `headwater device list | head`
        sys.stderr.close()
        return 1


def build_parser(word: str = "") -> argparse.ArgumentParser:
    """Build the parser of a first word; of everything when it is no command."""
    parser = _Parser(
        prog="headwater",
        description="IoT telemetry platform: acknowledged means durable, nothing dropped in silence.",
        epilog="`headwater COMMAND --help` tells more. Settings: command line, HEADWATER_*, headwater.toml, default.",
    )
    shown = f"headwater {_version()}" if word == "--version" else ""
    parser.add_argument("--version", action="version", version=shown)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    wanted = [module for module, words in MODULES.items() if word in words] or list(MODULES)
    for module in wanted:
        importlib.import_module(f"compose.commands.{module}").configure(commands)
    return parser


def _version() -> str:
    from importlib.metadata import version

    return version("headwater")


if __name__ == "__main__":
    sys.exit(main())
