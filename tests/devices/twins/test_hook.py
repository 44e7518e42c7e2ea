"""Following desired parts as a protocol's service does."""

from __future__ import annotations

import pytest

from tests.support.tiny_loop import TinyLoop


class FakeFollower:
    """A protocol's service of a few lines."""

    def __init__(self, service) -> None:
        self._call = service.internal
        self.since = self.ask()["next"]

    def ask(self, **body):
        answer = self._call("POST", "/internal/twins:desired", body)
        assert answer.status_code == 200, answer.json
        return answer.json

    def news(self, wait: float = 0.0):
        answer = self.ask(since=self.since, wait=wait)
        self.since = answer["next"]
        return [(each["device"], each["version"], each["desired"]) for each in answer["twins"]]


def wish(service, device: str, patch) -> None:
    assert service.admin("PATCH", f"/v1/devices/{device}/twin/desired", patch).status_code == 200


@pytest.fixture
def follower(service) -> FakeFollower:
    for device in ("d1", "d2"):
        service.register(device)
    wish(service, "d1", {"a": 1})
    return FakeFollower(service)


def test_changes_after_the_start_come_once_and_in_order(service, follower) -> None:
    wish(service, "d2", {"b": 1})
    wish(service, "d1", {"a": 2})

    assert follower.news() == [("d2", 1, {"b": 1}), ("d1", 2, {"a": 2})]
    assert follower.news() == []


def test_change_comes_to_who_waits(service, follower) -> None:
    loop, found = TinyLoop(), []
    loop.begin(lambda: found.append(follower.news(wait=4)))
    loop.run_until(lambda: any(loop.parked))

    wish(service, "d1", {"a": None})
    loop.run_until(lambda: found)

    assert found == [[("d1", 2, {})]]


def test_named_devices_are_shown_as_they_are(service, follower) -> None:
    shown = follower.ask(devices=["d1", "d2", "no-such"])["twins"]

    assert sorted((each["device"], each["version"], each["desired"]) for each in shown) == [
        ("d1", 1, {"a": 1}),
        ("d2", 0, {}),
    ]


def test_place_of_a_registry_that_came_from_a_backup_begins_anew(follower) -> None:
    answer = follower.ask(since=[2**40, ""])

    assert (answer["twins"], answer["next"]) == ([], follower.since)
