"""The dynamic security plugin of Debian's mosquitto, for real."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices.broker.dynsec import UNSET, DynamicSecurity
from devices.credentials import hash_for_broker
from tests.devices.running import MqttDevice, Service
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_until

PLUGINS = sorted(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))
SOON_S = 10.0  # 2 s are promised; a crowded machine takes its time


@pytest.fixture
def broker(tmp_path: Path):
    folder = tmp_path / "dynsec"
    folder.mkdir()
    rules = folder / "rules.json"
    made = ["mosquitto_ctrl", "dynsec", "init", str(rules), "_devices", "admin-secret"]
    subprocess.run(made, check=True, capture_output=True)
    lines = ("allow_anonymous false", f"plugin {PLUGINS[0]}", f"plugin_opt_config_file {rules}", "log_dest topic",
             "log_type notice", "log_type information", "connection_messages true")  # fmt: skip
    with Mosquitto(folder, *lines) as started:
        yield started


@pytest.fixture
def service(broker, sqlite_config):
    more = {"broker": broker.address, "broker_password": "admin-secret", "broker_auth": "dynsec"}
    started = Service(sqlite_config.model_copy(update=more | {"registry_key": "k" * 43}))
    wait_until(lambda: started.nobody("GET", "/readyz").status_code == 200)
    yield started
    started.stop()


def get_in(broker: Mosquitto, device_id: str, secret: str) -> MqttDevice:
    device = MqttDevice(broker, device_id, secret)  # type: ignore[arg-type]
    wait_until(device.is_connected, what=f"{device_id} gets in")
    return device


def test_device_has_its_own_branch_and_nothing_else(broker, service) -> None:
    first = get_in(broker, "d1", service.register("d1"))
    second = get_in(broker, "d2", service.register("d2"))
    heard: list[str] = []
    second.client.on_message = lambda _client, _data, message: heard.append(message.topic)
    granted: list[bool] = []
    second.client.on_subscribe = lambda *given: granted.extend(not code.is_failure for code in given[3])

    second.client.subscribe([("devices/d1/commands/+", 1), ("devices/d2/commands/+", 1), ("#", 1)])
    wait_until(lambda: len(granted) == 3)
    first.client.publish("devices/d2/commands/x", b"{}", 1).wait_for_publish(5)
    admin = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="a")
    admin.username_pw_set("_devices", "admin-secret")
    admin.connect("127.0.0.1", broker.port)
    admin.loop_start()
    admin.publish("devices/d2/commands/y", b"{}", 1).wait_for_publish(5)
    admin.loop_stop()

    assert granted == [False, True, False]
    assert "devices/d2/commands/x" not in heard
    first.close()
    second.close()


def test_disabled_and_rotated_devices_are_cut_off_and_come_back(broker, service) -> None:
    secret = service.register("d1")
    device = get_in(broker, "d1", secret)

    service.admin("POST", "/v1/devices/d1:disable")
    wait_until(lambda: not device.is_connected(), SOON_S)
    device.close()
    service.admin("POST", "/v1/devices/d1:enable")
    get_in(broker, "d1", secret).close()
    fresh = service.admin("POST", "/v1/devices/d1/credentials:rotate", {"overlap_s": 0}).json["credential"]["secret"]
    get_in(broker, "d1", fresh).close()

    service.admin("DELETE", "/v1/devices/d1")
    stranger = MqttDevice(broker, "d1", fresh)  # type: ignore[arg-type]
    wait_until(lambda: "Not authorized" in stranger.codes)
    stranger.close()


def test_tenant_that_is_full_lets_nobody_else_in(broker, service) -> None:
    secrets = {name: service.register(name) for name in ("d1", "d2", "d3")}
    first, second = (get_in(broker, name, secrets[name]) for name in ("d1", "d2"))
    wait_until(lambda: service.admin("GET", "/v1/usage").json["connections"] == 2)
    came = list(first.codes)

    assert service.admin("PATCH", "/v1/tenants/default", {"limits": {"connections": 2}}).status_code == 200
    third = get_refused(broker, "d3", secrets["d3"])
    assert (first.is_connected(), second.is_connected(), first.codes) == (True, True, came)

    second.close()
    wait_until(third.is_connected, SOON_S)
    assert service.admin("PATCH", "/v1/tenants/default", {"limits": {"connections": 1}}).status_code == 200
    wait_until(lambda: not third.is_connected(), SOON_S)
    assert first.codes == came
    first.close()
    third.close()


def get_refused(broker: Mosquitto, device_id: str, secret: str) -> MqttDevice:
    """Dial until the broker has the limit, which it gets within a second or two."""
    dialled: list[MqttDevice] = []

    def is_refused() -> bool:
        if not dialled or "Success" in dialled[-1].codes:
            [device.close() for device in dialled[-1:]]
            dialled.append(MqttDevice(broker, device_id, secret))  # type: ignore[arg-type]
            wait_until(lambda: dialled[-1].codes)
        return "Not authorized" in dialled[-1].codes and "Success" not in dialled[-1].codes

    wait_until(is_refused, SOON_S)
    return dialled[-1]


def test_secrets_lie_sealed_in_the_registry(service) -> None:
    secret = service.register("d1")
    with service.app.extensions["headwater.database"].read() as connection:
        [[stored]] = connection.exec_driver_sql("SELECT broker_hash FROM credentials").all()

    assert stored.startswith("1.")
    assert secret not in stored


def test_hash_from_before_is_no_secret_to_set_and_is_told(broker) -> None:
    auth = DynamicSecurity(broker.address, ("_devices", "admin-secret"), lambda form: form if form == "known" else None)

    auth.replace([("d1", "known"), ("d2", hash_for_broker("x"))])

    assert UNSET._value.get() == 1
    get_in(broker, "d1", "known").close()


def test_device_set_by_an_older_version_gets_the_rights_of_this_one(broker) -> None:
    role = {"command": "createRole", "rolename": "device-d1", "acls": []}
    client = {"command": "createClient", "username": "d1", "password": "old", "textname": "device-of-before"}
    commands = json.dumps({"commands": [role, client | {"roles": [{"rolename": "device-d1"}]}]})
    publish = ["mosquitto_pub", "-p", str(broker.port), "-u", "_devices", "-P", "admin-secret", "-q", "1"]
    subprocess.run([*publish, "-t", "$CONTROL/dynamic-security/v1", "-m", commands], check=True)

    DynamicSecurity(broker.address, ("_devices", "admin-secret"), lambda form: form).replace([("d1", "known")])

    device, granted = get_in(broker, "d1", "known"), []
    device.client.on_subscribe = lambda *given: granted.extend(not code.is_failure for code in given[3])
    device.client.subscribe([("devices/d1/children/+/commands/+", 1)])
    wait_until(lambda: granted)
    assert granted == [True]
    device.close()


def test_claimed_topics_are_of_their_device_and_in_roles_of_the_services(broker, service) -> None:
    add = {"command": "createClient", "username": "_bridge", "password": "b", "clientid": "_bridge"}
    auth = ["-p", str(broker.port), "-u", "_devices", "-P", "admin-secret", "-q", "1"]
    topic = ["-t", "$CONTROL/dynamic-security/v1"]
    subprocess.run(["mosquitto_pub", *auth, *topic, "-m", json.dumps({"commands": [add]})], check=True)
    first = get_in(broker, "d1", service.register("d1"))
    second = get_in(broker, "d2", service.register("d2"))
    service.admin("POST", "/v1/devices/d1/topics", {"filter": "tele/my lamp/#", "protocol": "tasmota"})
    bridge = get_in(broker, "_bridge", "b")
    heard: list[str] = []
    bridge.client.on_message = lambda _client, _data, message: heard.append(message.topic)
    bridge.client.on_connect = lambda client, *_: client.subscribe("tele/#", 1)

    def arrives() -> bool:
        bridge.client.subscribe("tele/#", 1)
        second.client.publish("tele/my lamp/SENSOR/forged", b"{}", 1)
        first.client.publish("tele/my lamp/SENSOR", b"{}", 1)
        return "tele/my lamp/SENSOR" in heard

    wait_until(arrives, SOON_S)
    assert set(heard) == {"tele/my lamp/SENSOR"}
    service.admin("DELETE", "/v1/devices/d1/topics?filter=tele/my%20lamp/%23")

    def is_cut() -> bool:
        before = len(heard)
        sent = first.client.publish("tele/my lamp/SENSOR", b"{}", 1)
        if sent.rc != mqtt.MQTT_ERR_SUCCESS:
            return False  # its rights change just now, for which the broker ends its connection
        sent.wait_for_publish(1)
        return first.is_connected() and len(heard) == before

    wait_until(is_cut, SOON_S)
    for device in (first, second, bridge):
        device.close()
