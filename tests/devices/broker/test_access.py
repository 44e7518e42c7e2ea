from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from devices.broker.access import BUSY_PAUSE_S, PAUSE_S, BrokerAccess, choose
from devices.broker.mosquitto_file import MosquittoFile
from devices.credentials import hash_for_broker
from devices.rows import BrokerCredential
from tests.support.waiting import wait_until
from wire.claims import Claim
from wire.devices import Changes
from wire.errors import Unavailable

SOON_S = 10.0  # 2 s are promised; a crowded machine takes its time


def held(device: str, key: str, *, is_chosen: bool = False) -> BrokerCredential:
    return BrokerCredential(device, key, f"hash-{key}", is_chosen)


def test_newest_credential_is_chosen_unless_another_is() -> None:
    valid = [held("a", "new"), held("a", "old", is_chosen=True), held("b", "new"), held("b", "old")]

    assert choose(valid) == [("a", "hash-old"), ("b", "hash-new")]


class FixedSource:
    def __init__(self) -> None:
        self.number = 1
        self.edge_ns: int | None = None
        self.asked: list[Sequence[str] | None] = []

    def revision(self) -> int:
        return self.number

    def changes(self, since: int) -> Changes:
        return Changes(revision=self.number, devices=["a"])

    def full(self) -> dict[str, frozenset[str]]:
        return {}

    def broker_credentials(
        self, now_ns: int, ids: Sequence[str] | None = None
    ) -> tuple[list[BrokerCredential], int | None]:
        self.asked.append(ids)
        if self.edge_ns is None or self.edge_ns > now_ns:
            return [held("a", "c1")], self.edge_ns
        return [], None


class NobodyTurns:
    def turn_broker_credentials(self, now_ns: int) -> list[str]:
        return []


class Collected:
    def __init__(self) -> None:
        self.lists: list[list[tuple[str, str]]] = []
        self.granted: list[Sequence[Claim]] = []

    def grant(self, claims: Sequence[Claim]) -> None:
        self.granted.append(claims)

    def replace(self, users: list[tuple[str, str]]) -> None:
        self.lists.append(users)

    def review(self) -> None:
        """Nothing is beside the list."""

    def settle(self) -> None:
        """Nothing is ever left over."""


def test_credential_that_ends_leaves_the_list_by_itself() -> None:
    source, collected, stopping = FixedSource(), Collected(), threading.Event()
    source.edge_ns = time.time_ns() + 300_000_000
    access = BrokerAccess(source, NobodyTurns(), collected)
    thread = threading.Thread(target=access.run, args=(stopping,))
    thread.start()

    try:
        wait_until(lambda: collected.lists == [[("a", "hash-c1")], []])
    finally:
        stopping.set()
        thread.join()


def test_change_reads_only_what_changed_and_writes_only_what_is_new() -> None:
    source, collected = FixedSource(), Collected()
    access = BrokerAccess(source, NobodyTurns(), collected)
    access.write()

    source.number = 2
    access.write()  # something else about the device
    source.number, source.edge_ns = 3, 1
    access.write()

    assert source.asked == [None, ["a"], ["a"]]
    assert collected.lists == [[("a", "hash-c1")], []]


def test_claims_are_granted_when_they_are_new_and_after_a_fault() -> None:
    source, claims = FixedSource(), [Claim("tele/a/#", "tasmota", "a")]

    class Away(Collected):
        def replace(self, users: list[tuple[str, str]]) -> None:
            super().replace(users)
            if len(self.lists) == 2:
                raise Unavailable("the broker does not answer")

    collected = Away()
    access = BrokerAccess(source, NobodyTurns(), collected, claims=lambda: list(claims))
    access.write()
    access.write()

    claims.clear()
    with pytest.raises(Unavailable):
        access.write()
    access.write()
    access.write()

    assert collected.granted == [[Claim("tele/a/#", "tasmota", "a")], [], []]


def test_list_that_could_not_be_written_is_written_at_the_next_try() -> None:
    class Away(Collected):
        def replace(self, users: list[tuple[str, str]]) -> None:
            super().replace(users)
            if len(self.lists) == 1:
                raise Unavailable("the broker does not answer")

    collected = Away()
    access = BrokerAccess(FixedSource(), NobodyTurns(), collected)
    with pytest.raises(Unavailable):
        access.write()

    access.write()

    assert collected.lists == [[("a", "hash-c1")]] * 2


def test_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    services, passwd = tmp_path / "services", tmp_path / "passwd"
    services.write_text("_bridge:x")
    passwd.write_text("old\n")
    passwd.chmod(0o640)
    before = passwd.stat().st_ino

    MosquittoFile(passwd, services, None).replace([("d1", "h1"), ("d2", "h2")])

    assert passwd.read_text() == "_bridge:x\nd1:h1\nd2:h2\n"
    assert passwd.stat().st_mode & 0o777 == 0o640
    assert passwd.stat().st_ino != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["passwd", "services"]


def test_unchanged_list_does_not_touch_the_file(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    auth = MosquittoFile(passwd, None, None)
    auth.replace([("d1", "h1")])
    before = passwd.stat().st_ino

    auth.replace([("d1", "h1")])

    assert passwd.stat().st_ino == before
    assert passwd.stat().st_mode & 0o777 == 0o600


def test_process_that_is_no_broker_is_never_signalled(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(f"{os.getpid()}\n")  # SIGHUP would end this test run

    MosquittoFile(tmp_path / "passwd", None, pid_file).replace([("d1", "h1")])

    assert (tmp_path / "passwd").read_text() == "d1:h1\n"


def test_new_device_connects_soon(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))

    wait_until(device.is_connected, SOON_S)


def test_disabled_device_is_cut_off_and_stays_out_until_enabled(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(device.is_connected)

    connected_service.admin("POST", "/v1/devices/d1:disable")

    wait_until(lambda: not device.is_connected(), SOON_S)
    wait_until(lambda: device.codes[-1] == "Not authorized")
    connected_service.admin("POST", "/v1/devices/d1:enable")
    wait_until(device.is_connected)


def test_deleted_device_is_cut_off(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    other = dial("d2", connected_service.register("d2"))
    wait_until(lambda: device.is_connected() and other.is_connected())

    connected_service.admin("DELETE", "/v1/devices/d1")

    wait_until(lambda: not device.is_connected(), SOON_S)
    assert other.is_connected()
    assert other.codes.count("Success") == 1


def test_device_without_a_credential_is_cut_off(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(device.is_connected)
    key = connected_service.admin("GET", "/v1/devices/d1/credentials").json["items"][0]["id"]

    connected_service.admin("DELETE", f"/v1/devices/d1/credentials/{key}")

    wait_until(lambda: not device.is_connected(), SOON_S)


def test_rotation_cuts_nobody_off_and_both_secrets_get_in_meanwhile(connected_service, dial) -> None:
    old = connected_service.register("d1")
    device = dial("d1", old)
    wait_until(device.is_connected)
    answer = connected_service.admin("POST", "/v1/devices/d1/credentials:rotate", {"overlap_s": 60})
    new = answer.json["credential"]["secret"]
    connected_service.register("d2")  # makes one more rewrite of the broker's file certain
    wait_until(device.is_connected)

    device.close()
    fresh = dial("d1", new)
    wait_until(fresh.is_connected, 8)
    fresh.close()
    again = dial("d1", old)

    wait_until(again.is_connected, 8)
    assert device.codes.count("Success") == 1


def test_old_secret_ends_at_the_broker_with_the_overlap(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(device.is_connected)

    answer = connected_service.admin("POST", "/v1/devices/d1/credentials:rotate", {"overlap_s": 1})

    wait_until(lambda: not device.is_connected(), 4)
    wait_until(dial("d1", answer.json["credential"]["secret"]).is_connected)


def test_services_stay_connected_through_every_rewrite(connected_service, broker) -> None:
    for number in range(3):
        connected_service.register(f"d{number}")

    assert (broker.folder / "passwd").read_text().startswith("_devices:$7$101$")
    wait_until(lambda: "d2:$7$" in (broker.folder / "passwd").read_text())


def test_ten_thousand_users_are_rewritten_within_a_second(tmp_path: Path) -> None:
    digest = hash_for_broker("x")
    users = [(f"device-{number}", digest) for number in range(10_000)]
    started_s = time.monotonic()

    MosquittoFile(tmp_path / "passwd", None, None).replace(users)

    assert time.monotonic() - started_s < 1.0


class EverChanging(FixedSource):
    """Another revision at every look, and another secret."""

    def revision(self) -> int:
        self.number += 1
        return self.number

    def broker_credentials(
        self, now_ns: int, ids: Sequence[str] | None = None
    ) -> tuple[list[BrokerCredential], int | None]:
        return [held("a", f"c{self.number}")], None


def test_changes_without_end_rewrite_the_list_more_rarely() -> None:
    source, collected, pauses = EverChanging(), Collected(), []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            if len(pauses) == 4:
                self.set()
            return self.is_set()

    BrokerAccess(source, NobodyTurns(), collected).run(Stopping())

    assert pauses == [PAUSE_S, 2 * PAUSE_S, BUSY_PAUSE_S, BUSY_PAUSE_S]
    assert len(collected.lists) == 4
