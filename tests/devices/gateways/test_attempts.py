"""The audit of what gateways tried beyond their rights over twins and commands."""

from __future__ import annotations

import pytest

from devices.gateways.attempts import OF_ONE, Attempts
from tests.support.waiting import wait_until
from wire.errors import Unavailable


class Flickering:
    """A database that is away at first."""

    def __init__(self, real) -> None:
        self.real, self.is_away = real, True

    def write(self):
        if self.is_away:
            raise Unavailable("away")
        return self.real.write()


def noted(service) -> list[tuple[str, str, str]]:
    entries = service.admin("GET", "/v1/audit?action=control.identity_mismatch&limit=200").json["items"]
    return sorted((entry["actor"], entry["object"], entry["remote_ip"]) for entry in entries)


def test_flood_of_a_gateway_leaves_few_entries_and_hides_no_other_gateway(service) -> None:
    for gateway in ("g1", "g2"):
        service.register(gateway, gateway=True)
    attempts = Attempts(service.app.extensions["headwater.database"])

    for number in range(10 * OF_ONE):
        attempts.note("g1", f"c{number}")
        attempts.note("g1", "c0")
    attempts.note("g2", "od\0d\n" + "x" * 100)
    attempts.note("gone", "c1")
    attempts.flush()
    attempts.flush()

    assert [actor for actor, _, _ in noted(service)] == ["device:g1"] * OF_ONE + ["device:g2"]
    assert noted(service)[-1] == ("device:g2", "device:od?d?" + "x" * 59, "")


def test_attempts_wait_for_a_database_that_is_away(service) -> None:
    service.register("g1", gateway=True)
    database = Flickering(service.app.extensions["headwater.database"])
    attempts = Attempts(database)
    attempts.note("g1", "c1")

    with pytest.raises(Unavailable):
        attempts.flush()
    database.is_away = False
    attempts.flush()

    assert [named for _, named, _ in noted(service)] == ["device:c1"]


def test_attempts_over_http_are_audited_in_the_gateways_tenant(service) -> None:
    gateway = service.device("g1", gateway=True)
    service.register("theirs")

    for path in ("commands", "twin", "twin?since=0"):
        joint = "&" if "?" in path else "?"
        assert gateway("GET", f"/v1/device/{path}{joint}device=theirs").status_code == 403
    gateway("POST", "/v1/device/commands/any/reply?device=none", {})

    wait_until(lambda: len(noted(service)) == 2)
    assert noted(service) == [
        ("device:g1", "device:none", "127.0.0.1"),
        ("device:g1", "device:theirs", "127.0.0.1"),
    ]
