"""mosquitto's access list: what stands there at the broker's start, and beneath it who may use which claimed topics.

It is one file, which the broker reads again on SIGHUP. `%u` and `%c` mean something in its `pattern` lines only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from devices.broker.whole_file import holds, write_whole
from wire.claims import Claim, asked, heard, reached, told

MARK = "\n# Topics that devices have claimed, written by the registry.\n"
_BRIDGE = re.compile(r"^user (_bridge(?:-\d+)?)$", re.MULTILINE)


class AccessList:
    """The file of a mosquitto on this machine."""

    def __init__(self, path: Path, services_path: Path, control: str) -> None:
        """`services_path` holds what is copied to its head; `control` is the user that speaks to devices."""
        self._path = path
        self._services_path = services_path
        self._control = control

    def write(self, claims: Sequence[Claim]) -> bool:
        """Let each device use the topics of its claims, and nobody else; tell whether the file is a new one."""
        content = render(self._services_path.read_text(), claims, self._control).encode()
        if holds(self._path, content):
            return False
        write_whole(self._path, content)
        return True


def render(head: str, claims: Sequence[Claim], control: str) -> str:
    """Give the text of the file."""
    lines = []
    for bridge in dict.fromkeys(_BRIDGE.findall(head)):
        lines += _rights(bridge, "read", heard(claims)) + _rights(bridge, "write", asked(claims))
    lines += _rights(control, "write", reached(claims))
    by_device = sorted(claims, key=lambda claim: (claim.device, claim.filter))
    for device, mine in groupby(by_device, key=lambda claim: claim.device):
        claimed = [claim.filter for claim in mine]
        lines += _rights(device, "readwrite", claimed)
        lines += [f"topic read {each}" for each in told(claimed)]
    return head + MARK + "".join(f"{line}\n" for line in lines) if lines else head


def _rights(user: str, access: str, topics: Sequence[str]) -> list[str]:
    return [f"user {user}", *(f"topic {access} {each}" for each in topics)] if topics else []


def kept_of(old: str) -> str:
    """Give what the registry wrote beneath the head of an earlier file."""
    return "".join(old.partition(MARK)[1:])
