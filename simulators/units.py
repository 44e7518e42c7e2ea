"""Read the amounts a person writes on the command line: rates, durations, shares, addresses."""

from __future__ import annotations

import re

_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_DURATION = re.compile(_NUMBER + r"\s*(ms|s|m|h)?")
_RATE = re.compile(_NUMBER + r"\s*(?:/\s*(ms|s|m|h))?")
_SHARE = re.compile(_NUMBER + r"\s*(%)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_PORT = 65_535


def parse_duration(text: str) -> float:
    """Read `60s`, `5m`, `1h`, `250ms` or a bare number of seconds, as seconds.

    Raises:
        ValueError: not of that form.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a duration: {text!r} (write 60s, 5m, 250ms)")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def parse_rate(text: str) -> float:
    """Read `1/s`, `10/m`, `0.5/s` or a bare number per second, as a number per second.

    Raises:
        ValueError: not of that form, or zero.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise ValueError(f"not a rate: {text!r} (write 1/s, 10/m, 0.5/s)")
    return float(match[1]) / _SECONDS[match[2] or "s"]


def parse_share(text: str) -> float:
    """Read `1%` or `0.01` as a share between 0 and 1.

    Raises:
        ValueError: not of that form, or above one.
    """
    match = _SHARE.fullmatch(text.strip())
    share = float(match[1]) / (100 if match[2] else 1) if match else 2.0
    if share > 1:
        raise ValueError(f"not a share: {text!r} (write 1% or 0.01)")
    return share


def parse_address(text: str, default_port: int) -> tuple[str, int]:
    """Read `host:port`, `host` or `[v6]:port`.

    Raises:
        ValueError: no host, or a port outside 1 to 65535.
    """
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:/\s]+)(?::(\d{1,5}))?", text.strip())
    port = int(match[2] or default_port) if match else 0
    if match is None or not 0 < port <= _MAX_PORT:
        raise ValueError(f"not an address: {text!r} (write host:port)")
    return match[1].strip("[]"), port
