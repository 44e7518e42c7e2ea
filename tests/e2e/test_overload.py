"""One noisy device: it is slowed down to its rate on both transports, nothing of it is lost, and nobody else notices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import paho.mqtt.client as paho
import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

NOISY = 4_000
OTHERS, EACH = 10, 40


@pytest.fixture(scope="module")
def fleet(installation: Installation) -> tuple[Device, list[Device]]:
    spec = {"rate_limit": "300:1"}
    assert installation.call("PUT", "/v1/device-types/chatty", spec).status == 201
    noisy = installation.add_device("noisy", type="chatty")
    others = [installation.add_device(f"calm-{number}") for number in range(OTHERS)]
    installation.wait_for_broker(others[-1])
    return noisy, others


@contextmanager
def session(installation: Installation, device: Device) -> Iterator[paho.Client]:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=device.id)
    client.username_pw_set(device.id, device.secret)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", installation.mqtt)
    client.loop_start()
    wait_until(client.is_connected, 5)
    yield client
    client.disconnect()
    client.loop_stop()


def publish(installation: Installation, device: Device, count: int) -> None:
    with session(installation, device) as client:
        sent = [
            client.publish(
                f"devices/{device.id}/telemetry",
                json.dumps({"boot_id": "b", "seq": seq, "values": {"n": seq}}).encode(),
                qos=1,
            )
            for seq in range(count)
        ]
        for each in sent:
            each.wait_for_publish(30)


def metric(installation: Installation, **labels: str) -> float:
    ports = json.loads((installation.data / "run/ports.json").read_text())
    text = installation._http.request("GET", f"http://127.0.0.1:{ports['ingest-json']}/metrics").data.decode()
    wanted = [f'{name}="{value}"' for name, value in labels.items()]
    lines = [line for line in text.splitlines() if line.startswith("headwater_ingest_rate_limited_total{")]
    return sum(float(line.split()[-1]) for line in lines if all(label in line for label in wanted))


def test_noisy_device_over_mqtt_is_slowed_and_costs_the_others_nothing(installation, fleet) -> None:
    noisy, others = fleet

    with ThreadPoolExecutor(4) as pool:
        done = pool.submit(publish, installation, noisy, NOISY)
        for other in others:
            pool.submit(publish, installation, other, EACH)
        done.result()
    for other in others:
        wait_until(lambda other=other: len(installation.points(other.id)) == EACH, 10, what=f"all of {other.id}")
        assert installation.quarantined(other.id) == []

    def ends() -> int:
        by_code = installation.get(f"/v1/devices/{noisy.id}/ledger")["by_code"]
        assert by_code.keys() <= {"rate_limited"}
        return len(installation.points(noisy.id)) + sum(by_code.values())

    wait_until(lambda: ends() == NOISY, 40, every_s=0.5, what="every message of it stored or quarantined")
    assert metric(installation, outcome="deferred", scope="device") > 0
    assert len(installation.points(noisy.id)) > 300

    left = True
    while left:
        answer = installation.call("POST", "/v1/quarantine:replay", {"filter": {"device": noisy.id}}).body
        assert answer["failed"] == []
        left = answer["more"]
    wait_until(lambda: len(installation.points(noisy.id)) == NOISY, 15, what="all of it after the replay")


def test_noisy_device_over_http_is_told_when_to_come_again(installation, fleet) -> None:
    _, others = fleet
    installation.call("PUT", "/v1/device-types/talkative", {"rate_limit": "20:1"})
    noisy = installation.add_device("noisy-http", type="talkative")

    def post(device: Device, number: int) -> tuple[str, int, str | None]:
        answer = installation.post(device, json.dumps({"boot_id": "h", "seq": number, "values": {"h": 1}}).encode())
        return device.id, answer.status, answer.headers.get("Retry-After")

    with ThreadPoolExecutor(8) as pool:
        loud = [pool.submit(post, noisy, number) for number in range(600)]
        calm = [pool.submit(post, other, number) for number in range(15) for other in others]
    statuses = Counter(each.result()[1] for each in loud)

    assert statuses.keys() == {202, 429}
    assert {each.result()[2] for each in loud if each.result()[1] == 429} == {"1"}
    assert {each.result()[1] for each in calm} == {202}
    for other in others:
        wait_until(lambda other=other: len(installation.points(other.id)) == EACH + 15, 10)


def test_a_batch_is_let_in_whole_and_the_next_waits_for_its_debt(installation, fleet) -> None:
    lines = "\n".join(json.dumps({"ts": 1_700_000_000_000 + n, "d": n}) for n in range(1_200)).encode()
    device = installation.add_device("bulk", type="chatty")

    first = installation.post(device, lines, Content_Type="application/x-ndjson")
    second = installation.post(device, b'{"d":1}')

    assert (first.status, first.body["accepted"]) == (202, 1_200)
    assert (second.status, second.body["code"]) == (429, "rate_limited")
    assert int(second.headers["Retry-After"]) in (2, 3, 4)
    ledger = installation.settle()
    assert ledger["received"] == ledger["accepted"] + ledger["quarantined"] + ledger["refused"]
