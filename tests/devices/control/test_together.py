"""Devices that wait over HTTP and are told something at the same moment: together, not one after another."""

from __future__ import annotations

import threading

from sqlalchemy import select

from devices.control.news import COUNTER
from devices.database.tables import COUNTERS
from tests.support.tiny_loop import TinyLoop

DEVICES = 20


def revision(service) -> int:
    with service.app.extensions["headwater.database"].read() as connection:
        return int(connection.execute(select(COUNTERS.c.value).where(COUNTERS.c.name == COUNTER)).scalar_one())


def ask_together(service, asks) -> list:
    """Ask on one event loop; while the questions come, the database is busy."""
    loop, answers = TinyLoop(), {}
    begun, gone = threading.Event(), threading.Event()

    def hold() -> None:
        with service.app.extensions["headwater.database"].write(COUNTER):
            begun.set()
            assert gone.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert begun.wait(10)
    for number, ask in enumerate(asks):
        loop.begin(lambda number=number, ask=ask: answers.update({number: ask()}))
    gone.set()
    holder.join()
    loop.run_until(lambda: len(answers) == len(asks))
    return [answers[number] for number in range(len(asks))]


def test_commands_and_answers_of_many_devices_share_transactions(service) -> None:
    devices = {f"d{number}": service.device(f"d{number}") for number in range(DEVICES)}
    sent = {key: service.admin("POST", f"/v1/devices/{key}/commands", {"name": "blink"}).json["id"] for key in devices}
    before = revision(service)

    got = ask_together(service, [lambda d=d: d("GET", "/v1/device/commands?wait=30") for d in devices.values()])
    handed_out = revision(service)
    replies = ask_together(
        service,
        [
            lambda key=key, d=d: d("POST", f"/v1/device/commands/{sent[key]}/reply", {"result": key})
            for key, d in devices.items()
        ],
    )

    assert [answer.json["commands"][0]["id"] for answer in got] == list(sent.values())
    assert [(answer.json["state"], answer.json["result"]) for answer in replies] == [
        ("succeeded", key) for key in devices
    ]
    assert handed_out - before <= 2  # the first ask may begin alone
    assert revision(service) - handed_out <= 2


def test_wrong_credential_among_many_is_refused_alone(service) -> None:
    device, other = service.device("d1"), service.device("d2")
    sent = service.admin("POST", "/v1/devices/d2/commands", {"name": "blink"}).json["id"]
    wrong = {"headers": {"Authorization": "Bearer d1.wrong"}}
    reply = f"/v1/device/commands/{sent}/reply"

    got = ask_together(
        service,
        [
            lambda: service.nobody("GET", "/v1/device/commands", **wrong),
            lambda: other("GET", "/v1/device/commands"),
            lambda: device("GET", "/v1/device/commands"),
        ],
    )
    replies = ask_together(
        service,
        [
            lambda: service.nobody("POST", reply, {}, **wrong),
            lambda: device("POST", reply, {}),
            lambda: other("POST", reply, {}),
        ],
    )

    assert [answer.status_code for answer in got] == [401, 200, 204]
    assert [answer.status_code for answer in replies] == [401, 404, 200]
