"""Connections that end, wait, or come twice: what they may cost others, and what they must not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ingest.thingsboard.config import DoorLimits
from ingest.thingsboard.door import Access, LogIn
from ingest.thingsboard.packets import Connect as Asked
from simulators import packets
from simulators.packets import Connect, Publisher
from tests.ingest.intake_support import SECRET
from tests.ingest.thingsboard.running import Client, FakeControl, Running, until

TELEMETRY, ATTRIBUTES = "v1/devices/me/telemetry", "v1/devices/me/attributes"
RPC = "v1/devices/me/rpc/request/+"
TOKEN = f"d1.{SECRET}"
Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as closing:

        def made(**limits: Any) -> Running:
            running = Running(tmp_path, DoorLimits(**{"retry_s": 0.02, "report_s": 0.05} | limits))
            closing.callback(running.stop)
            running.registry.add("d1")
            running.registry.add("g1", gateway=True)
            return running

        yield made


def command(number: int, device: str = "d1") -> dict[str, Any]:
    return {"id": f"c{number}", "device": device, "name": f"do{number}", "params": {}, "attempt": 1}


def sessions(running: Running, device: str) -> int:
    return len(running.door._door._devices.get(device, []))


def test_client_need_not_wait_for_its_welcome(start: Start) -> None:
    client = Client(start().port)
    said = [Connect("any", packets.V311, 30, TOKEN, "").encode()]
    said += [
        Publisher(TELEMETRY, packets.V311).qos1(content, 1) for content in (b'{"a": 1}', b'["%s"]' % (b"x" * 20_000))
    ]
    content = b"".join(said)

    client.send(content[:-3])
    client.code = packets.read_connack(client.next(packets.CONNACK).body, packets.V311).code
    client.next(packets.PUBACK)
    client.send(content[-3:])

    assert (client.code, client.next(packets.PUBACK).body) == (0, b"\x00\x01")
    client.close()


@pytest.mark.parametrize("deep", [b'{"Meter 1": {"a": %s}}', b'{"Meter 1": [%s]}'])
def test_what_cannot_be_passed_on_holds_up_nothing_behind_it(start: Start, deep: bytes) -> None:
    running = start()
    client = running.client(f"g1.{SECRET}", version=packets.V5)

    refused = client.say("v1/gateway/attributes", deep % (b"[" * 300 + b"]" * 300), 1)

    assert (refused, client.say("v1/gateway/attributes", {"Meter 1": {"a": 1}}, 2)) == (0x99, 0)


def test_answer_that_cannot_be_passed_on_is_refused(start: Start) -> None:
    running = start()
    client = running.client(TOKEN, version=packets.V5)
    client.subscribe(RPC)
    until(lambda: "d1" in running.registry.routed)
    running.registry.commands.append(command(1))
    client.heard()

    assert client.say("v1/devices/me/rpc/response/1", b"[" * 300 + b"]" * 300) == 0x99
    assert client.say("v1/devices/me/rpc/response/1", {"ok": True}) == 0


def test_fault_of_ours_ends_the_connection_instead_of_leaving_it_deaf(start: Start) -> None:
    running = start()
    running.registry.refuses = ZeroDivisionError("a fault")
    client = running.client(TOKEN)

    client.publish(ATTRIBUTES, {"a": 1})

    assert client.is_cut()


def test_devices_over_their_rate_leave_room_for_others(start: Start) -> None:
    running = start(window_messages=16)
    running.registry.add("greedy", rate_limit="1:3600")
    greedy = running.client(f"greedy.{SECRET}")
    for mid in range(1, 41):
        greedy.publish(TELEMETRY, {"n": mid}, mid)

    assert running.client(TOKEN).say(TELEMETRY, {"t": 1}) == 0
    until(lambda: running.world.quarantine.totals()["quarantined"] >= 35, "what there is no room for")
    until(lambda: running.door._uplink._window.messages <= 4, "which then holds none")


def test_older_connection_hears_again_what_a_newer_one_heard(start: Start) -> None:
    running = start()
    older, newer = (running.client(TOKEN) for _ in range(2))
    for client in (older, newer):
        client.subscribe(RPC, ATTRIBUTES)
    until(lambda: "d1" in running.registry.routed and running.door._downlink._known)

    running.registry.commands.append(command(1))
    heard_by_newer = newer.heard()[1]["method"]
    newer.close()
    until(lambda: sessions(running, "d1") == 1)
    running.registry.commands.append(command(2))
    heard_by_older = older.heard()[1]["method"]
    running.registry.wish("d1", {"a": 1})

    assert (heard_by_newer, heard_by_older) == ("do1", "do2")
    assert older.heard() == (ATTRIBUTES, {"a": 1})


def test_child_of_two_connections_is_there_until_both_are_gone(start: Start) -> None:
    running = start()
    older, newer = (running.client(f"g1.{SECRET}") for _ in range(2))
    for client in (older, newer):
        client.say("v1/gateway/connect", {"device": "Meter 1"})
        client.say("v1/gateway/connect", {"device": "Meter 1"}, 2)

    older.close()
    until(lambda: sessions(running, "g1") == 1)
    running.client(TOKEN)
    until(lambda: "d1" in running.registry.presence, "what was noted before is told, too")

    assert running.registry.presence["Meter-1"][0]
    newer.close()
    until(lambda: not running.registry.presence["Meter-1"][0])


def test_wish_that_changed_while_the_registry_was_away_is_told(start: Start) -> None:
    running = start()
    client = running.client(TOKEN)
    client.subscribe(ATTRIBUTES)
    until(lambda: running.door._downlink._known, "the start is known")

    running.registry.is_away = True
    until(lambda: "/internal/twins:desired" in running.registry.missed)
    running.registry.wish("d1", {"a": 1})
    running.registry.is_away = False

    assert client.heard() == (ATTRIBUTES, {"a": 1})


def test_device_that_listens_no_more_gets_its_commands_by_other_ways(start: Start) -> None:
    running = start()
    client = running.client(TOKEN)
    client.subscribe(RPC)
    until(lambda: "d1" in running.registry.routed)

    topic = RPC.encode()
    client.send(bytes((0xA2, 4 + len(topic), 0, 9, 0, len(topic))) + topic)
    client.next(11)  # UNSUBACK
    running.registry.commands.append(command(1))
    until(lambda: "d1" not in running.registry.routed, "it is given back")
    client.subscribe(RPC)
    until(lambda: "d1" in running.registry.routed, "and taken again")
    running.registry.commands.append(command(2))

    assert client.heard()[1]["method"] == "do2"


def test_more_messages_than_a_client_acknowledged_wait(start: Start) -> None:
    running = start(unheard=2)
    client = running.client(TOKEN)
    client.subscribe(RPC)
    until(lambda: "d1" in running.registry.routed)
    running.registry.commands += [command(number) for number in range(5)]

    first = [packets.read_publish(client.next(packets.PUBLISH), packets.V311) for _ in range(2)]
    was_quiet = client.is_quiet()
    for *_, mid in first:
        client.send(packets.puback(mid))

    assert was_quiet
    assert [client.heard()[1]["method"] for _ in range(3)] == ["do2", "do3", "do4"]


def test_connection_that_waits_for_room_makes_way_for_a_newer_one(start: Start) -> None:
    running = start(window_messages=1, of_one_device=1)
    running.ingest.is_away = True
    older = running.client(TOKEN)
    for mid in (1, 2, 3):
        older.publish(TELEMETRY, {"n": mid}, mid)
    until(lambda: running.door._uplink._window._queue, "it waits")

    running.client(TOKEN)

    assert older.is_cut()
    until(lambda: sessions(running, "d1") == 1, "it holds no place")


def test_who_does_not_log_in_keeps_nobody_out(start: Start) -> None:
    running = start(strangers=2, greeting_s=60)
    with ExitStack() as closing:
        silent = [closing.enter_context(socket.create_connection(("127.0.0.1", running.port), 10)) for _ in range(2)]
        until(lambda: len(running.door._door._strangers) == 2)

        assert running.client(TOKEN).code == 0
        assert silent[0].recv(1) == b""


def test_full_house_is_told_so(start: Start) -> None:
    running = start(connections=1)
    inside = running.client(TOKEN)

    assert (inside.code, running.client(f"g1.{SECRET}").code) == (0, 3)


class DisabledMeanwhile:
    """Lets a device in as it was, when all others were checked already."""

    def __init__(self, inner: Access, running: Running) -> None:
        self.inner, self.running = inner, running
        self.still_in, self.is_current = inner.still_in, inner.is_current

    def log_in(self, asked: Asked, remote_ip: str) -> LogIn:
        known = self.inner.log_in(asked, remote_ip)
        registry: FakeControl = self.running.registry
        registry.put(registry.devices["d1"].model_copy(update={"state": "disabled"}))
        until(lambda: self.running.door._gate.revision == registry.revision)
        return known


def test_device_that_is_disabled_while_it_logs_in_has_to_go(start: Start) -> None:
    running = start()
    inside = running.door._door
    inside._access = DisabledMeanwhile(inside._access, running)  # type: ignore[assignment]

    assert running.client(TOKEN).is_cut()
