"""Registration in bulk, and credentials that outlive a run."""

from __future__ import annotations

import asyncio
import csv
from dataclasses import replace
from pathlib import Path

import pytest

from simulators.http import parse_url
from simulators.outbox import Login
from simulators.platform_api import PlatformApi, PlatformError
from simulators.registration import Registrar, make_members, to_csv
from simulators.scenario import load
from tests.simulators.fakes import FakePlatform

MEMBERS = make_members([*load("greenhouse").groups, *load("pump").groups], 5, "demo-", None)


def register(platform: FakePlatform, path: Path | None = None, token: str = "operator") -> list[Login]:
    async def scene() -> list[Login]:
        api = PlatformApi(parse_url(platform.url), token)
        try:
            return await Registrar(api, path).register(MEMBERS)
        finally:
            api.close()

    return asyncio.run(scene())


def test_members_take_turns_and_have_stable_names() -> None:
    assert [member.device_id for member in MEMBERS] == [
        "demo-greenhouse-01", "demo-pump-01", "demo-greenhouse-02", "demo-pump-02", "demo-greenhouse-03",
    ]  # fmt: skip
    assert make_members(load("plain").groups, 1000, "", None)[-1].device_id == "plain-1000"


def test_groups_take_turns_as_their_sizes_say() -> None:
    groups = [
        replace(load("pump").groups[0], name="a", devices=6),
        replace(load("pump").groups[0], name="b", devices=2),
    ]

    names = [member.device_id for member in make_members(groups, 4, "", None)]

    assert sorted(names) == ["a-01", "a-02", "a-03", "b-01"]
    assert names[0] == "a-01"


def test_csv_names_type_and_tags() -> None:
    rows = list(csv.DictReader(to_csv(MEMBERS).splitlines()))

    assert rows[1] == {"id": "demo-pump-01", "type": "pump", "tag.crop": "", "tag.line": "a", "tag.site": "waterworks"}


def test_types_and_devices_are_made(platform: FakePlatform) -> None:
    logins = register(platform)

    assert set(platform.types) == {"greenhouse", "pump"}
    assert platform.types["pump"]["fields"]["rpm"]["unit"] == "1/min"
    assert logins[0] == Login("demo-greenhouse-01", "s1", "demo-greenhouse-01.s1")


def test_credentials_are_kept_and_used_again(platform: FakePlatform, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "credentials.json"

    first, second = register(platform, path), register(platform, path)

    assert first == second
    assert set(platform.devices.values()) == {"s1"}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [None, "torn{", "[]"])
def test_lost_credentials_are_rotated(platform: FakePlatform, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "credentials.json"
    register(platform, path)
    path.unlink() if text is None else path.write_text(text)

    logins = register(platform, path)

    assert {login.secret for login in logins} == {"s2"}
    assert register(platform, path) == logins


def test_credentials_of_a_platform_that_began_anew_are_replaced(platform: FakePlatform, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text('{"demo-pump-01":"stale"}')

    logins = register(platform, path)

    assert logins[1].secret == "s1"


def test_wrong_token_is_one_clear_line(platform: FakePlatform) -> None:
    with pytest.raises(PlatformError, match="HTTP 401 unauthorized: no token"):
        register(platform, token="nobody")
