from __future__ import annotations

import signal

import pytest
from sqlalchemy import delete, update

from devices.database.tables_control import TWINS
from tests.devices.running import Service
from tests.support.waiting import wait_until

TWIN = "/v1/devices/d1/twin"
DESIRED, REPORTED, ERRORS = "devices/d1/twin/desired", "devices/d1/twin/reported", "devices/d1/errors"


def wish(service, patch, device_id: str = "d1") -> int:
    return int(service.admin("PATCH", f"/v1/devices/{device_id}/twin/desired", patch).json["version"])


def reported(service):
    return service.admin("GET", TWIN + "/reported").json


def settled(service, device_id: str = "d1") -> bool:
    """Tell whether the broker has acknowledged the newest desired part."""
    database = service.app.extensions["headwater.database"]
    with database.read() as connection:
        return not connection.execute(TWINS.select().where(TWINS.c.device == device_id, TWINS.c.pending)).first()


def retained(dial, service, device_id: str = "d1"):
    """Give what a device that subscribes now is told first; None for nothing."""
    secret = service.admin("POST", f"/v1/devices/{device_id}/credentials:rotate", {"overlap_s": 0}).json
    device = dial(device_id, secret["credential"]["secret"])
    heard = device.listen(f"devices/{device_id}/twin/desired")
    device.publish(f"devices/{device_id}/twin/reported", {"ready": True})
    return heard


def test_device_that_was_away_gets_the_newest_wish_once(connected_service, dial) -> None:
    secret = connected_service.register("d1")
    for interval in (5, 6, 7):
        wish(connected_service, {"interval": interval})
    wait_until(lambda: settled(connected_service))

    device = dial("d1", secret)
    heard = device.listen(DESIRED)
    wait_until(lambda: heard)
    assert wish(connected_service, {"led": True}) == 4
    wait_until(lambda: len(heard) > 1)

    assert [(content["version"], content["desired"], is_retained) for _, content, is_retained in heard] == [
        (3, {"interval": 7}, True),
        (4, {"interval": 7, "led": True}, False),
    ]


def test_report_is_merged_and_survives_everything(broker, config, connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(device.is_connected)
    device.publish(REPORTED, {"a": 1, "b": {"c": 2}})
    wait_until(lambda: reported(connected_service)["version"] == 1)
    connected_service.stop()

    device.publish(REPORTED, {"b": {"c": None, "d": 3}})  # the registry is away: the broker keeps it
    again = Service(config.model_copy(update=broker.settings()))
    try:
        wait_until(lambda: reported(again)["version"] == 2)

        assert reported(again)["reported"] == {"a": 1, "b": {"d": 3}}
        assert again.admin("GET", TWIN + "/history").json["items"][0]["actor"] == "device:d1"
    finally:
        again.stop()


def test_refused_report_is_told_to_the_device(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    heard = device.listen(ERRORS)

    device.publish(REPORTED, "{")
    device.publish(REPORTED, {"a": "x" * 40_000})
    device.publish(REPORTED, {"good": 1})

    wait_until(lambda: len(heard) == 2)
    assert [(content["code"], content["topic"], content["end"]) for _, content, _ in heard] == [
        ("bad_syntax", REPORTED, "refused"),
        ("twin_too_large", REPORTED, "refused"),
    ]
    wait_until(lambda: reported(connected_service)["reported"] == {"good": 1})


def test_order_of_reports_is_kept(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(device.is_connected)

    for number in range(300):
        device.client.publish(REPORTED, f'{{"n":{number},"k{number % 7}":{number}}}', qos=1)

    wait_until(lambda: reported(connected_service)["version"] == 300)
    assert reported(connected_service)["reported"] == {"n": 299} | {f"k{n % 7}": n for n in range(293, 300)}


def test_old_retained_report_is_not_taken_again(broker, config, connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(device.is_connected)
    device.publish(REPORTED, {"n": 1}, retain=True)
    device.publish(REPORTED, {"n": 2})
    wait_until(lambda: reported(connected_service)["version"] == 2)
    connected_service.stop()

    again = Service(config.model_copy(update=broker.settings()))
    try:
        device.publish(REPORTED, {"m": 1})
        wait_until(lambda: reported(again)["version"] == 3)

        assert reported(again)["reported"] == {"n": 2, "m": 1}
    finally:
        again.stop()


@pytest.mark.parametrize("end", ["deleted", "retired", "lost"])
def test_wish_for_a_device_that_is_gone_is_taken_away(broker, config, connected_service, dial, end) -> None:
    connected_service.register("d1")
    wish(connected_service, {"a": 1})
    wait_until(lambda: settled(connected_service))
    service = connected_service
    if end == "deleted":
        service.admin("DELETE", "/v1/devices/d1")
    elif end == "retired":
        service.admin("POST", "/v1/devices/d1:retire")
    else:  # the registry comes from a backup that knew no wish
        service.stop()
        with service.app.extensions["headwater.database"].write() as transaction:
            transaction.execute(delete(TWINS))
        service = Service(config.model_copy(update=broker.settings()))
    if end == "deleted":
        service.register("d1")

    def is_clear() -> bool:
        with service.app.extensions["headwater.database"].read() as connection:
            return not connection.exec_driver_sql("SELECT 1 FROM twin_retained").first()

    try:
        wait_until(is_clear)
        if end != "retired":  # which nobody can connect as any more
            heard = retained(dial, service)
            wait_until(lambda: reported(service)["version"] == 1)
            assert heard == []
    finally:
        if service is not connected_service:
            service.stop()


def test_broker_that_lost_its_state_is_told_again(broker, connected_service, dial) -> None:
    secret = connected_service.register("d1")
    wish(connected_service, {"a": 1})
    wait_until(lambda: settled(connected_service))

    broker.stop(signal.SIGKILL)
    for name in broker.folder.glob("mosquitto.db*"):
        name.unlink()
    broker.start()

    heard = dial("d1", secret).listen(DESIRED)
    wait_until(lambda: heard)
    assert heard[0][1]["desired"] == {"a": 1}


def test_version_goes_on_from_the_brokers_after_a_restore(broker, config, connected_service, dial) -> None:
    connected_service.register("d1")
    for value in range(5):
        wish(connected_service, {"a": value})
    wait_until(lambda: settled(connected_service))
    connected_service.stop()
    with connected_service.app.extensions["headwater.database"].write() as transaction:
        transaction.execute(update(TWINS).values(desired='{"a":0}', desired_version=1))

    again = Service(config.model_copy(update=broker.settings()))
    try:
        wait_until(lambda: again.admin("GET", TWIN + "/desired").json["version"] == 6)
        wait_until(lambda: settled(again))
        heard = retained(dial, again)
        wait_until(lambda: heard)

        assert (heard[0][1]["version"], heard[0][1]["desired"]) == (6, {"a": 0})
    finally:
        again.stop()
