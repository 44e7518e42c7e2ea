"""The secrets of an installation."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from compose import credentials
from compose.folder import Folder
from compose.processes import find_program
from devices.people.passwords import is_password


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data")
    made.prepare()
    return made


def test_first_start_makes_everything_and_shows_the_password_once(folder: Folder) -> None:
    first, second = credentials.ensure(folder), credentials.ensure(folder)

    assert first.admin_password
    assert second.admin_password is None
    assert is_password((folder.secrets / "admin.hash").read_text().strip(), first.admin_password)
    assert (folder.secrets / "admin.hash").read_text().startswith("$argon2id$")


def test_password_is_stored_nowhere(folder: Folder) -> None:
    password = credentials.ensure(folder).admin_password

    assert password
    assert not [path for path in folder.root.rglob("*") if path.is_file() and password in path.read_text()]


def test_files_are_private_and_tokens_differ(folder: Folder) -> None:
    credentials.ensure(folder)
    files = [*folder.secrets.iterdir(), *folder.broker.iterdir()]

    tokens = [path.read_text().strip() for path in folder.secrets.glob("*.token")]

    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert len(set(tokens)) == len(tokens) == 7 + len(credentials.INNER)
    assert min(map(len, tokens)) == 43


def test_loose_permissions_are_tightened(folder: Folder) -> None:
    credentials.ensure(folder)
    (folder.secrets / "operator.token").chmod(0o644)

    credentials.ensure(folder)

    assert stat.S_IMODE((folder.secrets / "operator.token").stat().st_mode) == 0o600


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        folder = Folder(tmp_path / name)
        folder.prepare()
        credentials.ensure(folder)
        found.append({path.read_text() for path in folder.secrets.iterdir()})

    assert not found[0] & found[1]


def test_hash_is_what_mosquitto_passwd_makes(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("d1:plain password\n")
    users.chmod(0o600)
    subprocess.run([find_program("mosquitto_passwd"), "-U", str(users)], check=True, capture_output=True)
    made_by_mosquitto = users.read_text().strip().partition(":")[2]

    assert credentials.matches("plain password", made_by_mosquitto)
    assert not credentials.matches("other", made_by_mosquitto)
    assert not credentials.matches("x", "$7$101$!!!$???")
    assert not credentials.matches("x", "")


def test_devices_stay_when_a_service_gets_a_new_token(folder: Folder) -> None:
    credentials.ensure(folder)
    everybody = folder.broker / "devices.passwd"
    with everybody.open("a") as users:
        users.write("d1:$7$101$aaaa$bbbb\n")
    (folder.secrets / "broker-bridge.token").unlink()

    credentials.ensure(folder)

    lines = dict(line.split(":", 1) for line in everybody.read_text().splitlines())
    assert lines["d1"] == "$7$101$aaaa$bbbb"
    assert credentials.matches((folder.secrets / "broker-bridge.token").read_text().strip(), lines["_bridge"])
    assert set(lines) == {"_bridge", "_writer", "_dashboard", "_devices", "_control", "d1"}


def test_later_start_leaves_the_password_files_alone(folder: Folder) -> None:
    credentials.ensure(folder)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(folder.broker.iterdir())]

    credentials.ensure(folder)

    assert [(path, path.stat().st_mtime_ns) for path in sorted(folder.broker.iterdir())] == before


def test_older_installation_gets_a_token_for_each_service(folder: Folder) -> None:
    shared = folder.secrets / "service.token"
    shared.write_text("one for all\n")

    made = credentials.ensure(folder, ("bridge", "bridge-2"))
    before = made.services_file.read_text()
    credentials.ensure(folder, ("bridge", "bridge-2"))

    assert not shared.exists()
    assert made.services_file.read_text() == before  # what there is stays, so that a restart of one service fits
    names = sorted(line.split()[0] for line in before.splitlines())
    assert names == sorted(("bridge", "bridge-2", *credentials.INNER))
