"""ThingsBoard's MQTT door as its clients meet it: over a socket, with registry and ingestion in memory."""

from __future__ import annotations

import random
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.thingsboard.config import DoorLimits
from ingest.thingsboard.metrics import FAULTS
from simulators import packets
from simulators.packets import Connect
from tests.ingest.intake_support import SECRET
from tests.ingest.thingsboard.running import Client, Running, until
from wire.errors import BadRequest

TELEMETRY, ATTRIBUTES = "v1/devices/me/telemetry", "v1/devices/me/attributes"
Log = Callable[..., Client]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    made.registry.add("d1")
    made.registry.add("g1", gateway=True)
    yield made
    made.stop()


@pytest.fixture
def log_in(running: Running) -> Log:
    return lambda device="d1", **more: running.client(f"{device}.{SECRET}", **more)


def fields(running: Running) -> list[tuple[str, dict[str, Any]]]:
    return [(reading.device, reading.fields) for reading in running.readings]


@pytest.mark.parametrize("version", [packets.V311, packets.V5])
def test_telemetry_is_acknowledged_when_it_is_kept(running: Running, log_in: Log, version: int) -> None:
    running.ingest.opens.clear()
    client = log_in(version=version)
    client.publish(TELEMETRY, {"t": 21.5}, 7)

    until(lambda: running.ingest.batches)
    was_quiet = client.is_quiet()
    running.ingest.opens.set()

    assert was_quiet
    assert client.next(packets.PUBACK).body[:2] == b"\x00\x07"
    assert fields(running) == [("d1", {"t": 21.5})]


def test_message_waits_unacknowledged_while_the_service_is_away(running: Running, log_in: Log) -> None:
    running.ingest.is_away = True
    client = log_in()
    client.publish(TELEMETRY, {"t": 1})

    was_quiet = client.is_quiet()
    running.ingest.is_away = False

    assert was_quiet
    assert client.next(packets.PUBACK)
    assert fields(running) == [("d1", {"t": 1.0})]


def test_id_and_secret_may_be_user_name_and_password(running: Running) -> None:
    client = running.client("d1", SECRET)

    assert client.say(TELEMETRY, {"t": 1}) == 0
    client.close()


@pytest.mark.parametrize(("version", "code"), [(packets.V311, 5), (packets.V5, 0x87)])
def test_wrong_token_is_refused_and_audited(running: Running, version: int, code: int) -> None:
    right = running.client(f"d1.{SECRET}")
    wrong = running.client("d1.wrong", version=version)
    nobody = running.client("", version=version)

    assert (right.code, wrong.code, nobody.code) == (0, code, code)
    assert wrong.is_cut()
    until(lambda: running.registry.audit, "the attempt")
    assert running.registry.audit[0]["object"] == "device:d1"
    right.close()


def test_registry_that_is_away_is_no_wrong_token(running: Running) -> None:
    running.registry.is_away = True

    assert running.client(f"d1.{SECRET}").code == 3


def test_device_that_is_disabled_has_to_go(running: Running, log_in: Log) -> None:
    client = log_in()
    assert client.say(TELEMETRY, {"t": 1}) == 0

    running.registry.put(running.registry.devices["d1"].model_copy(update={"state": "disabled"}))

    assert client.is_cut()


def test_bad_json_is_quarantined_and_the_connection_goes_on(running: Running, log_in: Log) -> None:
    client = log_in()

    assert client.say(TELEMETRY, b"{not json") == 0
    assert client.say("v1/devices/me/nothing", {"a": 1}) == 0
    assert client.say("devices/other/telemetry", {"a": 1}) == 0  # somebody else's topic: refused
    assert client.say(TELEMETRY, {"t": 1}) == 0

    assert running.world.quarantine.totals()["quarantined"] == 2
    assert fields(running) == [("d1", {"t": 1.0})]


def test_mqtt_5_is_told_of_what_is_refused(running: Running, log_in: Log) -> None:
    client = log_in(version=packets.V5)

    assert client.say("devices/other/telemetry", {"a": 1}) == 0x99
    assert client.say("v1/devices/me/claim", {"secretKey": "s"}) == 0x83
    assert client.say(ATTRIBUTES, {"a": 1}) == 0


def test_message_sent_again_is_known_as_such(running: Running, log_in: Log) -> None:
    first = log_in()
    first.say(TELEMETRY, {"t": 1})

    log_in().publish(TELEMETRY, {"t": 1}, 1, dup=True)
    until(lambda: len(running.readings) == 2)
    running.registry.add("d2")
    log_in("d2").publish(TELEMETRY, {"t": 1}, 1, dup=True)
    until(lambda: len(running.readings) == 3)

    contents = [reading.content for reading in running.readings]
    assert contents[0] == contents[1]
    assert contents[2] != contents[0], "two devices have the same topic: they must not pass for one"


def test_attributes_are_kept_before_they_are_acknowledged(running: Running, log_in: Log) -> None:
    client = log_in()
    assert client.say(TELEMETRY, {"t": 1}) == 0
    running.registry.is_away = True
    client.publish(ATTRIBUTES, {"fw": "1.2"}, 2)

    was_quiet = client.is_quiet()
    went_on = client.say(TELEMETRY, {"t": 2}, 3)
    running.registry.is_away = False

    assert was_quiet
    assert went_on == 0, "telemetry does not wait for the registry"
    assert client.next(packets.PUBACK).body == b"\x00\x02"
    assert running.registry.twin("d1")["reported"] == {"fw": "1.2"}


def test_attributes_that_are_refused_are_acknowledged(running: Running, log_in: Log) -> None:
    running.registry.refuses = BadRequest("no object", code="bad_structure")

    assert log_in(version=packets.V5).say(ATTRIBUTES, [1]) == 0x99


def test_attributes_are_answered_as_asked(running: Running, log_in: Log) -> None:
    running.registry.twin("d1").update(reported={"fw": "1.2", "ip": "::1"}, desired={"interval": 5, "led": True})
    client = log_in()
    client.subscribe(ATTRIBUTES + "/response/+")

    client.say(f"{ATTRIBUTES}/request/1", {"clientKeys": "fw,none", "sharedKeys": "interval"})
    client.say(f"{ATTRIBUTES}/request/2", {"sharedKeys": "led"})
    client.say(f"{ATTRIBUTES}/request/3", {})

    assert client.heard() == (f"{ATTRIBUTES}/response/1", {"client": {"fw": "1.2"}, "shared": {"interval": 5}})
    assert client.heard() == (f"{ATTRIBUTES}/response/2", {"shared": {"led": True}})
    assert client.heard()[1]["client"] == {"fw": "1.2", "ip": "::1"}


def test_changed_wishes_come_to_who_listens(running: Running, log_in: Log) -> None:
    running.registry.wish("d1", {"a": 1, "b": 1, "gone": 1})
    client = log_in()
    client.subscribe(ATTRIBUTES)
    until(lambda: running.door._downlink._known, "the start is known")

    running.registry.wish("d1", {"a": 1, "b": 2, "new": {"x": 1}})
    running.registry.wish("other", {"a": 9})

    assert client.heard() == (ATTRIBUTES, {"b": 2, "new": {"x": 1}, "deleted": ["gone"]})
    assert client.is_quiet()


def test_command_is_an_rpc_and_its_answer_the_result(running: Running, log_in: Log) -> None:
    client = log_in()
    client.subscribe("v1/devices/me/rpc/request/+")
    until(lambda: "d1" in running.registry.routed)
    running.registry.commands.append({"id": "c1", "device": "d1", "name": "open", "params": {"n": 1}, "attempt": 1})

    topic, asked = client.heard()
    client.say(topic.replace("request", "response"), {"ok": True})

    assert (topic, asked) == ("v1/devices/me/rpc/request/1", {"method": "open", "params": {"n": 1}})
    until(lambda: {"id": "c1", "device": "d1", "is_sent": True, "attempt": 1} in running.registry.reported)
    assert {"id": "c1", "device": "d1", "state": "succeeded", "result": {"ok": True}} in running.registry.reported
    client.close()
    until(lambda: "d1" not in running.registry.routed, "other ways are open again")


def test_error_as_answer_is_a_failure_and_an_unknown_number_is_nothing(running: Running, log_in: Log) -> None:
    client = log_in(version=packets.V5)
    client.subscribe("v1/devices/me/rpc/request/+")
    until(lambda: "d1" in running.registry.routed)
    running.registry.commands.append({"id": "c1", "device": "d1", "name": "open", "params": {}, "attempt": 1})
    client.heard()

    assert client.say("v1/devices/me/rpc/response/7", {}) == 0x99
    assert client.say("v1/devices/me/rpc/response/1", {"error": "stuck"}) == 0
    assert running.registry.reported[-1] == {"id": "c1", "device": "d1", "error": "stuck"}


def test_device_asks_the_server(log_in: Log) -> None:
    client = log_in()
    client.subscribe("v1/devices/me/rpc/response/+")

    client.say("v1/devices/me/rpc/request/1", {"method": "getSessionLimits", "params": {"timeout": 5000}})
    client.say("v1/devices/me/rpc/request/2", {"method": "openDoor", "params": {}})

    assert client.heard()[1]["maxInflightMessages"] == 100
    assert "error" in client.heard()[1]


def test_gateway_speaks_for_devices_by_its_own_names(running: Running, log_in: Log) -> None:
    client = log_in("g1")
    assert client.say("v1/gateway/connect", {"device": "Meter 1"}) == 0
    client.say("v1/gateway/telemetry", {"Meter 1": [{"kwh": 1}], "Hall/2": [{"ts": 1772600000000, "values": {"t": 2}}]})
    client.say("v1/gateway/attributes", {"Meter 1": {"serial": "X"}, "Hall/2": {"serial": "Y"}})

    assert fields(running) == [("Meter-1", {"kwh": 1.0}), ("Hall.2", {"t": 2.0})]
    assert running.registry.twin("Hall.2")["reported"] == {"serial": "Y"}
    until(lambda: "Meter-1" in running.registry.presence, "it is online")
    client.say("v1/gateway/disconnect", {"device": "Meter 1"})
    until(lambda: not running.registry.presence["Meter-1"][0], "it is offline")


def test_gateway_is_told_what_concerns_its_children(running: Running, log_in: Log) -> None:
    client = log_in("g1")
    client.subscribe("v1/gateway/attributes", "v1/gateway/rpc", "v1/gateway/attributes/response")
    client.say("v1/gateway/connect", {"device": "Meter 1", "type": "default"})
    until(lambda: "Meter-1" in running.registry.routed and "Meter-1" in running.door._downlink._known)

    running.registry.wish("Meter-1", {"rate": 9})
    assert client.heard() == ("v1/gateway/attributes", {"device": "Meter 1", "data": {"rate": 9}})
    running.registry.commands.append({"id": "c1", "device": "Meter-1", "name": "open", "params": {}, "attempt": 1})
    asked = {"id": 1, "method": "open", "params": {}}
    assert client.heard() == ("v1/gateway/rpc", {"device": "Meter 1", "data": asked})
    client.say("v1/gateway/rpc", {"device": "Meter 1", "id": 1, "data": {"success": True}})
    assert running.registry.reported[-1]["result"] == {"success": True}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"client": False, "key": "rate"}, {"value": 9}),
        ({"client": True, "keys": ["serial", "none"]}, {"values": {"serial": "X"}}),
        ({"client": ["serial"], "shared": ["rate"]}, {"client": {"serial": "X"}, "shared": {"rate": 9}}),
    ],
)
def test_gateway_asks_for_attributes_of_a_child(
    running: Running, log_in: Log, asked: dict[str, Any], told: dict[str, Any]
) -> None:
    running.registry.twin("Meter-1").update(reported={"serial": "X"}, desired={"rate": 9})
    client = log_in("g1")
    client.subscribe("v1/gateway/attributes/response")

    client.say("v1/gateway/attributes/request", {"id": 5, "device": "Meter 1"} | asked)

    assert client.heard()[1] == {"id": 5, "device": "Meter 1"} | told


def test_ordinary_device_speaks_for_nobody(running: Running, log_in: Log) -> None:
    client = log_in()

    assert client.say("v1/gateway/telemetry", {"Meter 1": [{"kwh": 1}]}) == 0
    assert client.say("v1/gateway/attributes", {"Meter 1": {"a": 1}}) == 0

    assert fields(running) == []
    assert running.world.quarantine.totals()["quarantined"] == 2


def test_gateway_whose_rules_refuse_children_is_told(running: Running, log_in: Log) -> None:
    running.registry.rules = "child_refused"

    assert log_in("g1", version=packets.V5).say("v1/gateway/connect", {"device": "Meter 1"}) == 0x99


def test_device_is_provisioned_before_it_has_a_credential(running: Running) -> None:
    client = running.client("provision")
    client.subscribe("/provision/response")
    client.say("/provision/request", {"deviceName": "d9", "provisionDeviceKey": "k", "provisionDeviceSecret": "s"})

    assert client.heard()[1] == {"status": "SUCCESS", "credentialsValue": "d9.new"}
    client.publish(TELEMETRY, {"t": 1})
    assert client.is_cut(), "and may do nothing else"


def test_presence_follows_the_connection(running: Running, log_in: Log) -> None:
    client = log_in()
    until(lambda: running.registry.presence.get("d1", (False,))[0])

    client.close()

    until(lambda: not running.registry.presence["d1"][0])


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Running]:
    made = Running(
        tmp_path, DoorLimits(connections=3, of_one_device=1, greeting_s=0.2, unread_bytes=4096, retry_s=0.02)
    )
    made.registry.add("d1")
    yield made
    made.stop()


def test_older_connections_of_one_device_have_to_go(narrow: Running) -> None:
    first, second = (narrow.client(f"d1.{SECRET}") for _ in range(2))

    assert first.is_cut()
    assert second.say(TELEMETRY, {"t": 1}) == 0
    second.close()


def test_who_says_nothing_holds_no_place(narrow: Running) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), 10) as silent:
        assert silent.recv(1) == b""


def test_who_reads_nothing_has_to_go(narrow: Running) -> None:
    client = narrow.client(f"d1.{SECRET}")
    client.subscribe("v1/devices/me/rpc/response/+")
    ask = packets.Publisher("v1/devices/me/rpc/request/1", packets.V311).qos0(b'{"method":"getSessionLimits"}')

    def ask_without_end() -> None:
        for _ in range(20_000):
            client.send(ask * 50)

    with pytest.raises(ConnectionError):
        ask_without_end()


def test_port_with_a_certificate_speaks_tls_and_nothing_else(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    more = ["-addext", "subjectAltName=DNS:localhost", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run([*made.split(), *more], check=True, capture_output=True)
    running = Running(tmp_path, tls_cert=certificate, tls_key=key)
    running.registry.add("d1")
    try:
        secure = Client(running.port, ssl.create_default_context(cafile=str(certificate)))
        secure.greet(f"d1.{SECRET}", "", packets.V311)
        kept = secure.say(TELEMETRY, {"t": 1})
        secure.close()
        plain = Client(running.port)
        with pytest.raises(ConnectionError):
            plain.greet(f"d1.{SECRET}", "", packets.V311)
        plain.close()
    finally:
        running.stop()

    assert kept == 0


def test_damaged_packets_cost_their_own_connection_only(running: Running) -> None:
    dice, faults = random.Random(7), FAULTS._value.get()  # type: ignore[attr-defined]
    whole = Connect("any", packets.V5, 30, f"d1.{SECRET}").encode() + b"".join(
        packets.Publisher(topic, packets.V5).qos1(b'{"Meter 1":[{"t":1}]}', 5)
        for topic in (TELEMETRY, ATTRIBUTES, "v1/gateway/telemetry", "v1/devices/me/rpc/request/1")
    )
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(dice.choice((1, 2, 8))):
            content[dice.randrange(len(content))] = dice.randrange(256)
        with socket.create_connection(("127.0.0.1", running.port), 10) as damaged:
            damaged.sendall(content[: dice.randrange(len(content))])

    assert running.client(f"d1.{SECRET}").say(TELEMETRY, {"t": 1}) == 0
    assert FAULTS._value.get() == faults  # type: ignore[attr-defined]


def test_greeting_that_is_too_large_is_not_read(narrow: Running) -> None:
    with pytest.raises(ConnectionError):
        narrow.client("d1", "x" * 10_000)
