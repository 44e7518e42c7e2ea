from __future__ import annotations

import threading

import pytest

from devices.twins import merge
from tests.support.waiting import wait_until

TWIN = "/v1/devices/d1/twin"


def test_twin_of_a_fresh_device_is_empty(service) -> None:
    service.register("d1")

    shown = service.admin("GET", TWIN)

    assert shown.headers["ETag"] == '"0.0"'
    assert shown.json == {
        "device": "d1", "desired": {}, "desired_version": 0, "desired_time": None,
        "reported": {}, "reported_version": 0, "reported_time": None, "delta": {},
    }  # fmt: skip


def test_wish_and_report_meet(service) -> None:
    device = service.device()

    wished = service.admin("PATCH", TWIN, {"desired": {"interval": 5, "led": {"on": True}}}).json
    told = device("GET", "/v1/device/twin").json
    answered = device("PATCH", "/v1/device/twin/reported", {"interval": 5, "led": {"on": False}, "fw": "1.0"})

    assert wished["desired_version"] == 1
    assert told["desired"] == {"interval": 5, "led": {"on": True}}
    assert (answered.status_code, answered.json["version"], answered.headers["ETag"]) == (200, 1, '"1"')
    assert service.admin("GET", TWIN).json["delta"] == {"led": {"on": True}}
    assert service.admin("GET", TWIN + "/reported").json["reported"]["fw"] == "1.0"


def test_put_replaces_and_null_removes(service) -> None:
    service.register("d1")
    service.admin("PUT", TWIN + "/desired", {"a": 1, "b": {"c": 2, "d": None}})

    patched = service.admin("PATCH", TWIN + "/desired", {"a": None, "b": {"e": 3}})
    replaced = service.admin("PUT", TWIN, {"desired": {"z": 1}})

    assert patched.json["desired"] == {"b": {"c": 2, "e": 3}}
    assert (replaced.json["desired"], replaced.json["desired_version"]) == ({"z": 1}, 3)


def test_change_of_nothing_makes_no_version(service) -> None:
    device = service.device()
    for _ in range(2):
        service.admin("PATCH", TWIN + "/desired", {"a": 1})
        device("PATCH", "/v1/device/twin/reported", {"b": 1})

    shown = service.admin("GET", TWIN).json

    assert (shown["desired_version"], shown["reported_version"]) == (1, 1)
    assert len(service.admin("GET", TWIN + "/history").json["items"]) == 2


def test_second_of_two_writers_with_the_same_tag_is_refused(service) -> None:
    service.register("d1")
    tag = service.admin("PATCH", TWIN + "/desired", {"a": 1}).headers["ETag"]
    first = service.admin("PATCH", TWIN, {"desired": {"a": 2}}, headers={"If-Match": tag})

    second = service.admin("PATCH", TWIN + "/desired", {"a": 3}, headers={"If-Match": tag})

    assert first.headers["ETag"] == '"2.0"'
    assert (second.status_code, second.json["code"], second.json["version"]) == (409, "twin_conflict", 2)
    assert service.admin("PATCH", TWIN, {"desired": {"a": 3}}, headers={"If-Match": '"2.0"'}).status_code == 200
    assert service.admin("PATCH", TWIN, {"desired": {"a": 4}}, headers={"If-Match": "one"}).status_code == 400
    assert service.admin("GET", TWIN).json["desired"] == {"a": 3}


def test_parallel_writers_lose_nothing(service) -> None:
    service.register("d1")
    admin = service.admin

    def write(number: int) -> None:
        for turn in range(10):
            admin("PATCH", TWIN + "/desired", {f"w{number}": turn})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    shown = admin("GET", TWIN + "/desired").json
    assert shown["desired"] == {f"w{number}": 9 for number in range(4)}
    assert shown["version"] == 40


def test_document_over_its_limit_is_refused_whole(service) -> None:
    device = service.device()
    half = "x" * (merge.MAX_BYTES // 2)
    device("PATCH", "/v1/device/twin/reported", {"a": half})

    over = device("PATCH", "/v1/device/twin/reported", {"b": half})

    assert (over.status_code, over.json["code"]) == (413, "twin_too_large")
    assert str(merge.MAX_BYTES) in over.json["detail"]
    assert device("PATCH", "/v1/device/twin/reported", {"a": None, "b": half}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"desired":{"a":1},"reported":{"b":1}}', 422, "unprocessable"),
        (b'{"desired":5}', 400, "bad_structure"),
        (b'{"desired":{"a":NaN}}', 400, "bad_syntax"),
        (b"{}", 422, "unprocessable"),
        (b"{", 400, "bad_syntax"),
    ],
)
def test_bodies_that_are_no_patch_are_refused(service, body, status, code) -> None:
    service.register("d1")

    refused = service.admin("PATCH", TWIN, data=body)

    assert (refused.status_code, refused.json["code"]) == (status, code)


def test_history_tells_who_and_pages(service) -> None:
    device = service.device()
    for turn in range(3):
        service.admin("PATCH", TWIN + "/desired", {"a": turn})
    device("PATCH", "/v1/device/twin/reported", {"a": 2})

    first = service.admin("GET", TWIN + "/history?limit=3").json
    rest = service.admin("GET", TWIN + f"/history?limit=3&cursor={first['next']}").json
    only = service.admin("GET", TWIN + "/history?part=reported").json["items"]

    assert [(item["part"], item["version"]) for item in first["items"] + rest["items"]] == [
        ("reported", 1), ("desired", 3), ("desired", 2), ("desired", 1),
    ]  # fmt: skip
    assert rest["next"] is None
    assert [item["actor"] for item in only] == ["device:d1"]
    assert first["items"][1]["actor"] == "token:bootstrap"
    assert service.admin("GET", TWIN + "/history?cursor=x").status_code == 400


def test_history_is_bounded(config) -> None:
    from tests.devices.running import Service

    service = Service(config.model_copy(update={"twin_history": 5}))
    try:
        service.register("d1")
        for turn in range(9):
            service.admin("PATCH", TWIN + "/desired", {"a": turn})

        items = service.admin("GET", TWIN + "/history").json["items"]
    finally:
        service.stop()

    assert [item["version"] for item in items] == [9, 8, 7, 6, 5]


def test_device_that_waits_is_told_at_once(service) -> None:
    device = service.device()
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(device("GET", "/v1/device/twin?since=0&wait=20")), daemon=True
    )
    thread.start()
    assert not answers

    service.admin("PATCH", TWIN + "/desired", {"a": 1})

    wait_until(lambda: answers, 5)
    assert (answers[0].status_code, answers[0].json["desired_version"]) == (200, 1)
    assert device("GET", "/v1/device/twin?since=1").status_code == 204
    assert device("GET", "/v1/device/twin?since=1&wait=0.05").status_code == 204


def test_device_needs_its_own_valid_credential(service) -> None:
    device = service.device()
    other = service.register("d2")

    def code(header: dict[str, str]) -> str:
        return str(service.nobody("GET", "/v1/device/twin", headers=header).json["code"])

    assert code({}) == "unauthorized"
    assert code({"Authorization": f"Bearer d1.{other}"}) == "unauthorized"
    assert service.admin("GET", "/v1/device/twin").json["code"] == "unauthorized"
    service.admin("POST", "/v1/devices/d1:disable")
    assert device("GET", "/v1/device/twin").json["code"] == "device_disabled"


def test_visit_is_a_sign_of_life(service) -> None:
    device = service.device()

    device("GET", "/v1/device/twin")

    wait_until(lambda: service.is_online("d1"))
    assert service.admin("GET", "/v1/devices/d1/credentials").json["items"][0]["last_used"] is not None


def test_viewer_reads_but_does_not_wish(service) -> None:
    service.register("d1")
    viewer = service.caller("viewer")

    assert viewer("GET", TWIN).status_code == 200
    assert viewer("PATCH", TWIN, {"desired": {"a": 1}}).status_code == 403
    assert service.admin("GET", "/v1/devices/none/twin").json["code"] == "device_not_found"
    assert service.admin("PATCH", "/v1/devices/none/twin", {"desired": {}}).json["code"] == "device_not_found"


def test_twin_goes_with_its_device_and_its_changes_are_audited(service) -> None:
    service.register("d1")
    service.admin("PATCH", TWIN + "/desired", {"a": 1})
    entry = service.admin("GET", "/v1/audit?object=d1").json["items"][0]
    service.admin("DELETE", "/v1/devices/d1")
    service.register("d1")

    assert (entry["action"], entry["detail"]) == ("twin.update", {"version": 1, "patch": {"a": 1}})
    assert service.admin("GET", TWIN).json["desired_version"] == 0


def test_wait_ends_with_the_service(service) -> None:
    device = service.device()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(device("GET", "/v1/device/twin?since=0&wait=50")))
    thread.start()
    wait_until(lambda: service.is_online("d1"))

    service.app.extensions["headwater.workers"].stop()
    thread.join(10)  # far below the 50 s it asked for

    assert answers[0].status_code == 204
