from __future__ import annotations

import signal
import threading
import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import text

from devices.database.engine import Database
from devices.presence.feed import BrokerFeed
from devices.presence.keeper import Keeper
from devices.presence.store import PresenceStore
from tests.devices.running import Service
from tests.support.waiting import wait_until
from wire import clock
from wire.clock import NS_PER_S


class FakeMarks:
    """Marks of nobody."""

    def change(self, ids, judge) -> None: ...
    def excuse(self, start_ns, return_ns) -> None: ...
    def unconfirm(self) -> None: ...
    def disconnect_all(self, judge) -> None: ...
    def silence(self, is_silent, silence) -> int:
        return 0

    def overdue(self, is_overdue) -> int:
        return 0

    def beat(self) -> None: ...
    def last_beat_ns(self) -> int:
        return time.time_ns()

    def counts(self) -> tuple[int, int]:
        return 0, 0


def publish(broker, user: str, secret: str, topic: str, payload: str, *, retain: bool = False) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=user)
    client.username_pw_set(user, secret)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)
    client.disconnect()
    client.loop_stop()


def test_connection_and_crash_are_followed(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))

    wait_until(lambda: connected_service.is_online("d1"))
    device.crash()
    wait_until(lambda: not connected_service.is_online("d1"))

    shown = connected_service.admin("GET", "/v1/devices/d1").json
    assert shown["last_seen"] is not None
    assert [item["id"] for item in connected_service.admin("GET", "/v1/devices?online=false").json["items"]] == ["d1"]


def test_takeover_of_a_connection_leaves_the_device_online(connected_service, dial) -> None:
    secret = connected_service.register("d1")
    first = dial("d1", secret)
    wait_until(first.is_connected)
    wait_until(lambda: connected_service.is_online("d1"))

    first.client.reconnect_delay_set(60, 60)
    second = dial("d1", secret)
    wait_until(lambda: second.is_connected() and not first.is_connected())
    dial("d2", connected_service.register("d2"))
    wait_until(lambda: connected_service.is_online("d2"), 10)  # all that was told before it is applied by now

    assert connected_service.is_online("d1")


def test_what_a_device_says_counts(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(lambda: connected_service.is_online("d1"))

    device.client.publish("devices/d1/status", '{"state":"offline"}', qos=1)
    wait_until(lambda: not connected_service.is_online("d1"))
    device.client.publish("devices/d1/status", "online", qos=1)

    wait_until(lambda: connected_service.is_online("d1"))


def test_stale_retained_status_revives_nobody(broker, config, connected_service, dial) -> None:
    secret = connected_service.register("d1")
    device = dial("d1", secret)
    wait_until(device.is_connected)
    device.client.publish("devices/d1/status", "online", qos=1, retain=True).wait_for_publish(5)
    wait_until(lambda: connected_service.is_online("d1"))
    device.close()  # an orderly end: no last will, the retained word stays
    wait_until(lambda: not connected_service.is_online("d1"))
    connected_service.stop()

    again = Service(config.model_copy(update=broker.settings()))
    try:
        witness = dial("d2", again.register("d2"))
        wait_until(lambda: again.is_online("d2"), 10)  # the retained words came before it

        assert witness.is_connected()
        assert not again.is_online("d1")
    finally:
        again.stop()


def test_changes_during_a_short_absence_are_not_missed(broker, config, connected_service, dial) -> None:
    first = dial("d1", connected_service.register("d1"))
    secret = connected_service.register("d2")
    wait_until(lambda: connected_service.is_online("d1"))
    wait_until(lambda: "d2:" in (broker.folder / "passwd").read_text())
    connected_service.stop()

    first.crash()
    second = dial("d2", secret)
    wait_until(second.is_connected)
    again = Service(config.model_copy(update=broker.settings()))
    try:
        wait_until(lambda: again.is_online("d2"))
        wait_until(lambda: not again.is_online("d1"))
    finally:
        again.stop()


def test_news_that_could_not_be_written_come_again(broker, connected_service, dial, config) -> None:
    class Killed(Keeper):
        def apply(self, evidence) -> None:
            raise RuntimeError(evidence)

    secret = connected_service.register("d1")
    wait_until(lambda: "d1:" in (broker.folder / "passwd").read_text())
    connected_service.stop()
    credential = ("_devices", "devices-secret")
    doomed = BrokerFeed(broker.address, credential, Killed(FakeMarks(), 300.0), lambda: None)
    device = dial("d1", secret)

    with pytest.raises(RuntimeError, match="connected"):
        doomed.run(threading.Event())

    again = Service(config.model_copy(update=broker.settings()))
    try:
        wait_until(lambda: again.is_online("d1"))
        assert device.is_connected()
    finally:
        again.stop()


def test_command_reaches_a_device_whose_news_were_missed(broker, config, connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    heard = device.listen("devices/d1/commands/+")
    wait_until(lambda: connected_service.is_online("d1"))
    marks = PresenceStore(connected_service.app.extensions["headwater.database"])

    marks.unconfirm()  # as after an absence of the registry that was too long for the broker
    connected_service.admin("POST", "/v1/devices/d1/commands", {"name": "blink"})

    wait_until(lambda: heard)


def test_broker_stopped_and_started_again_is_followed(broker, connected_service, dial) -> None:
    gone = dial("d1", connected_service.register("d1"))
    back = dial("d2", connected_service.register("d2"))
    wait_until(lambda: connected_service.is_online("d1") and connected_service.is_online("d2"))
    gone.client.reconnect_delay_set(60, 60)

    broker.stop(signal.SIGTERM)
    broker.start()

    wait_until(back.is_connected)
    wait_until(lambda: connected_service.is_online("d2"))
    wait_until(lambda: not connected_service.is_online("d1"))


def test_silent_http_device_goes_offline_by_its_type(config) -> None:
    service = Service(config)
    try:
        service.admin("PUT", "/v1/device-types/quick", {"expected_interval_s": 0.2})
        service.register("d1", type="quick")
        service.register("d2")
        now_ns = time.time_ns()

        service.internal("POST", "/internal/seen", {"devices": {"d1": now_ns, "d2": now_ns, "unknown": now_ns}})

        assert service.is_online("d1")
        assert service.is_online("d2")
        wait_until(lambda: not service.is_online("d1"))
        assert service.is_online("d2")
    finally:
        service.stop()


def test_last_messages_by_mqtt_do_not_revive_a_device(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(lambda: connected_service.is_online("d1"))
    device.crash()
    wait_until(lambda: not connected_service.is_online("d1"))
    now_ns = time.time_ns()

    connected_service.internal("POST", "/internal/seen", {"mqtt": {"d1": now_ns}})
    assert not connected_service.is_online("d1")
    connected_service.internal("POST", "/internal/seen", {"devices": {"d1": time.time_ns()}})

    assert connected_service.is_online("d1")


def test_registry_works_while_the_broker_is_away(broker, connected_service) -> None:
    broker.stop()

    connected_service.register("d1")

    assert connected_service.nobody("GET", "/readyz").status_code == 200
    broker.start()
    secret = connected_service.admin("POST", "/v1/devices/d1/credentials:rotate", {"overlap_s": 0}).json
    wait_until(lambda: "d1:" in (broker.folder / "passwd").read_text())
    assert secret["credential"]["username"] == "d1"


def test_replies_and_twins_by_mqtt_are_signs_of_life(connected_service, dial) -> None:
    connected_service.admin("PUT", "/v1/device-types/quick", {"expected_interval_s": 0.5})
    device = dial("d1", connected_service.register("d1", type="quick"))
    shown = lambda: connected_service.admin("GET", "/v1/devices/d1").json  # noqa: E731 - said once
    wait_until(lambda: shown()["presence"] == "stale")
    connected_service.admin("POST", "/v1/devices/d1/commands", {"name": "blink"})
    before = shown()["last_seen"]

    device.publish("devices/d1/twin/reported", {"a": 1})
    wait_until(lambda: shown()["last_seen"] > before)
    states = [event["state"] for event in connected_service.admin("GET", "/v1/devices/d1/presence").json["events"]]

    assert states[:3] == ["online", "stale", "online"]


def test_clock_of_another_machine_reaches_no_future(service) -> None:
    service.register("d1")

    service.internal("POST", "/internal/seen", {"devices": {"d1": time.time_ns() + 86_400 * NS_PER_S}})

    seen = clock.parse_time(service.admin("GET", "/v1/devices/d1").json["last_seen"])
    assert seen <= time.time_ns()


def availability(service, device: str) -> float:
    return service.admin("GET", f"/v1/devices/{device}/presence").json["availability"]["24h"]


def begin_long_ago(service, hours: float = 1.0) -> None:
    """Let the histories have begun earlier."""
    with service.app.extensions["headwater.database"].write("presence") as transaction:
        early = text("UPDATE presence_events SET time_ns = time_ns - :by")
        transaction.execute(early, {"by": int(hours * 3_600 * NS_PER_S)})


def test_downtime_of_the_broker_does_not_count_against_devices(broker, connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(lambda: connected_service.is_online("d1"))
    begin_long_ago(connected_service)
    device.client.reconnect_delay_set(3, 3)

    broker.stop(signal.SIGTERM)
    wait_until(lambda: not device.is_connected())
    broker.start()
    wait_until(lambda: not connected_service.is_online("d1"))
    wait_until(lambda: connected_service.is_online("d1"))

    shown = connected_service.admin("GET", "/v1/devices/d1/presence").json
    assert shown["availability"]["24h"] == 100.0
    assert len(shown["gaps"]) >= 1
    assert shown["gaps"][-1]["end"] > shown["gaps"][-1]["start"]


def test_downtime_of_the_registry_does_not_count_against_devices(config) -> None:
    config = config.model_copy(update={"silence_s": 2.0})
    service = Service(config)
    service.register("d1")
    service.internal("POST", "/internal/seen", {"devices": {"d1": time.time_ns()}})
    begin_long_ago(service)
    service.stop()
    database = Database(config.registry, config.data)
    with database.write("presence") as transaction:
        ago = {"at": time.time_ns() - 600 * NS_PER_S}
        transaction.execute(text("UPDATE counters SET value = :at WHERE name = 'presence'"), ago)
        transaction.execute(text("UPDATE presence SET last_seen_ns = :at, since_ns = :at, online = true"), ago)
    database.close()

    again = Service(config)
    try:
        wait_until(lambda: again.admin("GET", "/v1/devices/d1/presence").json["gaps"])
        assert again.is_online("d1")  # silence counts from now
        wait_until(lambda: not again.is_online("d1"))
        assert availability(again, "d1") == 100.0  # it has a minute to be heard again
    finally:
        again.stop()


def test_bridge_that_is_away_makes_nobody_stale() -> None:
    class Marks(FakeMarks):
        def __init__(self) -> None:
            self.looked, self.excused = 0, []

        def excuse(self, start_ns, return_ns) -> None:
            self.excused.append(start_ns)

        def overdue(self, limit_s, now_ns) -> int:
            self.looked += 1
            return 0

        def silence(self, limit_s, now_ns) -> int:
            return 0

    def look(*bridges: tuple[str, float, bool], ago_s: int = 60, carried_s: int = 0) -> tuple[int, list[float]]:
        marks, begun_ns = Marks(), time.time_ns() - ago_s * NS_PER_S
        keeper = Keeper(marks, 300.0)
        for name, at_s, is_here in bridges:
            if is_here and carried_s:
                keeper.see({"d1": begun_ns + carried_s * NS_PER_S}, by_mqtt=True)
            keeper.note_bridge(name, begun_ns + int(at_s * NS_PER_S), is_here=is_here)
        keeper.look(hears=True)
        return marks.looked, [(at_ns - begun_ns) / NS_PER_S for at_ns in marks.excused]

    assert look() == (1, [])
    assert look(("_bridge", 0, False)) == (0, [])
    assert look(("_bridge", 0, False), ("_bridge", 9, True)) == (1, [])  # so short an absence hides nothing
    assert look(("_bridge", 5, False), ("_bridge-2", 6, True), ("_bridge", 30, True)) == (1, [5])

    left = ("_bridge-2", 0, False)
    assert look(left, ago_s=590) == (0, [])
    assert look(left, ago_s=610) == (1, [])  # it is not waited for any longer
    assert look(left, ("_bridge-2", 3_600, True), ago_s=4_000) == (1, [0])  # meanwhile nothing was heard at all
    assert look(left, ("_bridge-2", 3_600, True), ago_s=4_000, carried_s=60) == (1, [])  # others carried on
