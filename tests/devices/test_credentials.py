from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from chassis.tokens import hash_token
from devices.credentials import hash_for_broker, issue
from wire.devices import parse_bearer
from wire.errors import Unprocessable
from wire.registry import CredentialCreate

NOW_NS = 1_800_000_000_000_000_000


def test_issued_secret_is_stored_as_hashes_only() -> None:
    issued, row = issue("pump.7", NOW_NS, CredentialCreate())

    assert parse_bearer(issued.bearer) == ("pump.7", issued.secret)
    assert row.sha256 == hash_token(issued.secret)
    assert issued.secret not in repr(row)
    assert row.broker_hash.startswith("$7$101$")


def test_secrets_and_salts_never_repeat() -> None:
    issued = [issue("d1", NOW_NS, CredentialCreate()) for _ in range(100)]

    assert len({told.secret for told, _ in issued}) == 100
    assert hash_for_broker("same") != hash_for_broker("same")


def test_hash_has_the_form_of_mosquitto_passwd(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.touch()
    command = ["mosquitto_passwd", "-b", str(path), "d1", "x"]
    subprocess.run(command, check=True, capture_output=True)
    theirs = path.read_text().strip().removeprefix("d1:").split("$")

    ours = hash_for_broker("x").split("$")

    assert [len(part) for part in ours] == [len(part) for part in theirs]
    assert ours[:3] == theirs[:3]


@pytest.mark.parametrize("validity", [{"not_after": NOW_NS}, {"not_before": NOW_NS + 9, "not_after": NOW_NS + 9}])
def test_credential_that_never_holds_is_refused(validity) -> None:
    with pytest.raises(Unprocessable):
        issue("d1", NOW_NS, CredentialCreate(**validity))
