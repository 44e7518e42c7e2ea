from __future__ import annotations

from sqlalchemy import text

from devices.types import store
from tests.support.waiting import wait_until
from wire import clock

TYPE = "/v1/device-types/pump"
FIRST = {"fields": {"p": {"min": 0, "max": 10}}}
SECOND = {"fields": {"p": {"min": 0, "max": 6}}}


def versions(service) -> list[tuple[int, str]]:
    return [(each["version"], each["state"]) for each in service.admin("GET", TYPE + "/versions").json["items"]]


def draft(service, spec, **more) -> int:
    made = service.admin("POST", TYPE + "/versions", {"spec": spec} | more)
    assert made.status_code == 201, made.json
    return int(made.json["version"])


def test_every_change_is_kept_as_a_version_with_who_and_why(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    service.admin("PUT", TYPE, SECOND)
    draft(service, FIRST, note="as it was")

    assert versions(service) == [(3, "draft"), (2, "active"), (1, "retired")]
    newest = service.admin("GET", TYPE + "/versions/3").json
    assert (newest["note"], newest["by"], newest["origin"]) == ("as it was", "token:bootstrap", "draft")
    assert newest["spec"]["fields"]["p"]["max"] == 10
    ids = [service.admin("GET", f"{TYPE}/versions/{number}").json["id"] for number in (1, 2, 3)]
    assert len(set(ids)) == 3
    assert service.admin("GET", TYPE).json["version_id"] == ids[1]


def test_draft_of_a_new_type_is_not_in_force_until_activated(service) -> None:
    draft(service, FIRST)
    before = service.admin("GET", TYPE).status_code
    listed = service.admin("GET", "/v1/device-types:summary").json["items"]
    service.register("d1", type="pump")
    changes = service.internal("GET", "/internal/changes?since=0").json

    activated = service.admin("POST", TYPE + ":activate", {"version": 1})

    assert before == 404
    assert [(each["name"], each["version"], each["drafts"]) for each in listed] == [("pump", None, [1])]
    assert changes["types"] == []
    assert (activated.status_code, activated.json["state"]) == (200, "active")
    assert (
        service.internal("POST", "/internal/devices:lookup", {"ids": ["d1"]}).json["types"]["default/pump"]["version"]
        == 1
    )
    assert service.internal("GET", "/internal/changes?since=0").json["types"] == ["default/pump"]


def test_version_that_was_in_force_is_rolled_back_to_not_activated(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    service.admin("PUT", TYPE, SECOND)

    again = service.admin("POST", TYPE + ":activate", {"version": 1})
    present = service.admin("POST", TYPE + ":activate", {"version": 2})
    none = service.admin("POST", TYPE + ":activate", {"version": 9})

    assert [(a.status_code, a.json["code"]) for a in (again, present, none)] == [
        (409, "version_retired"),
        (409, "version_active"),
        (404, "version_not_found"),
    ]


def test_rollback_puts_old_content_in_force_under_a_new_number(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    alone = service.admin("POST", TYPE + ":rollback", {})
    service.admin("PUT", TYPE, SECOND)

    back = service.admin("POST", TYPE + ":rollback", {})
    same = service.admin("POST", TYPE + ":rollback", {"version": 1})
    other = service.admin("POST", TYPE + ":rollback", {"version": 2})

    assert (alone.status_code, alone.json["code"]) == (409, "no_earlier_version")
    assert (back.json["version"], back.json["fields"]["p"]["max"]) == (3, 10)
    assert service.admin("GET", TYPE + "/versions/3").json["origin"] == "rollback of 1"
    assert (same.status_code, same.json["code"]) == (409, "same_version")
    assert (other.json["version"], other.json["fields"]["p"]["max"]) == (4, 6)


def test_versions_are_compared_with_what_each_change_means(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    draft(service, SECOND)

    found = service.admin("GET", TYPE + "/versions/2/diff").json
    back = service.admin("GET", TYPE + "/versions/1/diff?against=2").json

    assert (found["before"], found["after"], found["compatible"]) == (1, 2, False)
    assert [(c["path"], c["code"], c["before"], c["after"]) for c in found["changes"]] == [
        ("fields.p.max", "out_of_range", 10, 6)
    ]
    assert back["compatible"]
    assert service.admin("GET", TYPE + "/versions/0/diff").status_code == 404
    assert service.admin("GET", TYPE + "/versions/x").status_code == 404


def test_scheduled_version_comes_into_force_at_its_time(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    draft(service, SECOND)
    at_ns = clock.now_ns() + clock.NS_PER_S

    planned = service.admin("POST", TYPE + ":activate", {"version": 2, "at": clock.format_ns(at_ns)})

    assert (planned.json["state"], planned.json["due"]) == ("scheduled", clock.format_ns(at_ns))
    assert service.admin("GET", TYPE).json["version"] == 1
    wait_until(lambda: service.admin("GET", TYPE).json["version"] == 2)
    activated_ns = clock.parse_time(service.admin("GET", TYPE + "/versions/2").json["activated"])
    assert at_ns <= activated_ns <= clock.now_ns()
    assert service.admin("GET", "/v1/audit?object=pump").json["items"][0]["actor"] == "system"


def test_schedule_can_be_moved_to_another_draft_or_taken_back(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    draft(service, SECOND)
    draft(service, {"fields": {}})
    at = clock.format_ns(clock.now_ns() + 3600 * clock.NS_PER_S)
    for number in (2, 3):
        service.admin("POST", TYPE + ":activate", {"version": number, "at": at})

    moved = versions(service)
    service.admin("POST", TYPE + ":unschedule", {"version": 3})
    past = service.admin("POST", TYPE + ":activate", {"version": 2, "at": "2020-01-01T00:00:00Z"})

    assert moved == [(3, "scheduled"), (2, "draft"), (1, "active")]
    assert versions(service)[0] == (3, "draft")
    assert (past.status_code, past.json["fields"]) == (422, ["at"])


def test_deleted_type_leaves_versions_and_numbers_behind(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    draft(service, SECOND)

    service.admin("DELETE", TYPE)
    gone = versions(service)
    made = service.admin("PUT", TYPE, FIRST)

    assert gone == [(2, "retired"), (1, "retired")]
    assert (made.status_code, made.json["version"]) == (201, 3)


def test_spec_that_contradicts_itself_is_refused_everywhere(service) -> None:
    bad = {"fields": {"p": {"min": 3, "max": 1}}}

    answers = [
        service.admin("PUT", TYPE, bad),
        service.admin("POST", "/v1/device-types", bad | {"name": "pump"}),
        service.admin("POST", TYPE + "/versions", {"spec": bad}),
    ]

    assert [(a.status_code, a.json["fields"]) for a in answers] == [(422, ["fields.p.min"])] * 3
    assert service.admin("GET", TYPE + "/versions").status_code == 404


def test_same_content_in_older_words_makes_no_version(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    database = service.app.extensions["headwater.database"]
    with database.engine.begin() as connection:
        older = {"spec": '{"fields":{"p":{"min":0,"max":10}}}'}
        connection.execute(text("UPDATE device_types SET spec = :spec"), older)

    assert service.admin("PUT", TYPE, FIRST).json["version"] == 1


def test_numbers_that_points_carry_are_named_for_other_services(service) -> None:
    service.admin("PUT", TYPE, FIRST)
    service.admin("PUT", "/v1/device-types/tank", FIRST)
    service.admin("PUT", TYPE, SECOND)
    service.admin("DELETE", TYPE)

    found = service.internal("GET", "/internal/type-versions?id=1&id=2&id=3&id=99").json["items"]

    assert sorted((each["id"], each["type"], each["version"]) for each in found) == [
        (1, "pump", 1),
        (2, "tank", 1),
        (3, "pump", 2),
    ]


def test_oldest_unused_version_makes_room_for_one_too_many(service, monkeypatch) -> None:
    monkeypatch.setattr(store, "MAX_VERSIONS", 4)
    service.admin("PUT", TYPE, FIRST)
    first_id = service.admin("GET", TYPE).json["version_id"]
    service.admin("PUT", TYPE, SECOND)
    due = draft(service, FIRST, note="later")
    service.admin("POST", TYPE + ":activate", {"version": due, "at": "2100-01-01T00:00:00Z"})
    drafts = [draft(service, {"description": str(number)}) for number in range(3)]

    assert versions(service) == [(6, "draft"), (3, "scheduled"), (2, "active"), (1, "retired")]
    service.admin("PUT", TYPE, {"description": "in force"})
    assert versions(service) == [(7, "active"), (3, "scheduled"), (2, "retired"), (1, "retired")]
    service.admin("PUT", TYPE, {"description": "and another"})

    assert versions(service) == [(8, "active"), (7, "retired"), (3, "scheduled"), (2, "retired")]
    assert service.admin("GET", f"{TYPE}/versions/{drafts[0]}").json["code"] == "version_not_found"
    assert service.admin("POST", TYPE + ":rollback", {"version": 1}).json["code"] == "version_not_found"
    named = service.internal("GET", f"/internal/type-versions?id={first_id}").json["items"]
    assert named == [{"id": first_id, "type": "pump", "version": 1}]
    summary = service.admin("GET", "/v1/device-types:summary").json["items"][0]
    assert (summary["versions"], summary["scheduled"]) == (4, 3)
    assert service.admin("POST", TYPE + ":rollback", {}).json["version"] == 9
