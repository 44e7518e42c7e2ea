"""Bring a fleet into the registry in bulk, and keep its credentials between runs when told where."""

from __future__ import annotations

import asyncio
import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from simulators.outbox import Login
from simulators.platform_api import PlatformApi, PlatformError
from simulators.scenario import Group

_IMPORT_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Member:
    """A device of the fleet: its id, what it is, and the device type it is registered as."""

    device_id: str
    group: Group
    type: str
    number: int  # within its group


def make_members(groups: Sequence[Group], count: int, prefix: str, type_name: str | None) -> list[Member]:
    """Name the devices of a fleet: `{prefix}{group}-01`, `-02`, ...; groups take turns as their sizes say.

    The order is fixed by groups and count, and every stretch of it holds the groups in about their shares.
    """
    weights = [group.devices or 1 for group in groups]
    taken, total = [0] * len(groups), sum(weights)
    order: list[tuple[int, int]] = []
    for place in range(1, count + 1):
        # The group that is furthest behind its share, the first of equals.
        chosen = max(range(len(groups)), key=lambda each: (weights[each] * place - taken[each] * total, -each))
        order.append((chosen, taken[chosen]))
        taken[chosen] += 1
    widths = [max(2, len(str(each))) for each in taken]
    return [
        Member(
            f"{prefix}{groups[chosen].name}-{number + 1:0{widths[chosen]}d}",
            groups[chosen],
            type_name or groups[chosen].type,
            number,
        )
        for chosen, number in order
    ]


class Registrar:
    """Registers members and remembers their logins; `path` keeps them between runs, readable by the owner only."""

    def __init__(self, api: PlatformApi, path: Path | None = None) -> None:
        self._api, self._path = api, path
        self._logins: dict[str, Login] = _load(path) if path else {}

    async def register(self, members: Sequence[Member]) -> list[Login]:
        """Make types and devices where missing; give the logins in the order of the members.

        Raises:
            PlatformError: the registry refuses, or cannot be reached.
        """
        for name, group in {member.type: member.group for member in members}.items():
            await self._api.ensure_type(group.device_type(name))
        for first in range(0, len(members), _IMPORT_ROWS):
            for entry in await self._api.import_devices(to_csv(members[first : first + _IMPORT_ROWS])):
                self._remember(entry["device"], entry)
        lost = [member.device_id for member in members if member.device_id not in self._logins]  # registered before
        for device_id, entry in zip(lost, await asyncio.gather(*map(self._api.rotate, lost)), strict=True):
            self._remember(device_id, entry)
        self._save()
        return [self._logins[member.device_id] for member in members]

    def keep(self, login: Login) -> None:
        """Remember the new login of a device."""
        self._logins[login.device_id] = login
        self._save()

    def _remember(self, device_id: str, entry: dict[str, str]) -> None:
        self._logins[device_id] = _to_login(device_id, entry)

    def _save(self) -> None:
        if self._path is None:
            return
        text = orjson.dumps(
            {login.device_id: login.secret for login in self._logins.values()}, option=orjson.OPT_INDENT_2
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(self._path.name + ".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text + b"\n")
        fresh.replace(self._path)


async def renew(api: PlatformApi, device_id: str) -> Login | None:
    """Get a new credential for a device whose old one is refused; None when that is refused too."""
    try:
        return _to_login(device_id, await api.rotate(device_id))
    except PlatformError:
        return None


def to_csv(members: Sequence[Member]) -> str:
    """Write the rows of an import: id, type, and a column for each tag that any member has."""
    keys = sorted({key for member in members for key in member.group.tags})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "type", *(f"tag.{key}" for key in keys)])
    for member in members:
        tags = member.group.tags_of(member.number)
        writer.writerow([member.device_id, member.type, *(tags.get(key, "") for key in keys)])
    return text.getvalue()


def _to_login(device_id: str, entry: dict[str, str]) -> Login:
    return Login(device_id, entry["secret"], entry.get("bearer") or f"{device_id}.{entry['secret']}")


def _load(path: Path) -> dict[str, Login]:
    try:
        secrets = orjson.loads(path.read_bytes())
        return {device_id: Login(device_id, secret, f"{device_id}.{secret}") for device_id, secret in secrets.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError):
        return {}  # torn or not ours: the credentials are rotated instead
