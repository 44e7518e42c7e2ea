from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from sqlalchemy import text
from werkzeug.security import generate_password_hash

from chassis.tokens import hash_token
from devices.database.tables import METADATA
from devices.people.guessing import CHECKS_AT_ONCE, CHECKS_OF_ADDRESS, Checks
from devices.people.service import Operators
from tests.devices.running import ADMIN, Caller, Service
from wire.errors import Conflict, TooManyRequests

CHEAP = "pbkdf2:sha256:1"  # the strength of the hash is not the matter here


@pytest.fixture
def staffed(config):
    started = Service(config.model_copy(update={"admin_hash": generate_password_hash("first password", CHEAP)}))
    yield started
    started.stop()


def log_in(service: Service, name: str, password: str, remote_ip: str = "127.0.0.5"):
    body = {"name": name, "password": password, "remote_ip": remote_ip}
    return service.internal("POST", "/internal/operators:login", body)


def test_worker_that_is_second_to_make_the_first_operator_starts_all_the_same() -> None:
    class Behind:
        """Shows nobody, and then somebody is there."""

        def list(self, tenant):
            return []

        def add(self, operator, who):
            raise Conflict("operator admin exists already", code="operator_exists")

    Operators(Behind()).bootstrap(generate_password_hash("first password", CHEAP))


def test_first_operator_logs_in_and_out(staffed) -> None:
    session = log_in(staffed, "admin", "first password").json
    call = Caller(staffed.app, session["token"])

    assert call("GET", "/v1/operators").json["items"][0]["name"] == "admin"
    staffed.internal("POST", "/internal/operators:logout", {"sha256": hash_token(session["token"])})

    assert call("GET", "/v1/operators").status_code == 401
    actions = [item["action"] for item in staffed.admin("GET", "/v1/audit?actor=operator:admin").json["items"]]
    assert actions == ["operator.logout", "operator.login"]


def test_wrong_name_and_wrong_password_look_alike(staffed) -> None:
    answers = [log_in(staffed, name, "wrong password") for name in ("admin", "nobody", "a\0b", "x" * 256)]

    assert {(answer.status_code, answer.json["code"], answer.json["detail"]) for answer in answers} == {
        (401, "login_failed", "wrong name or password")
    }


def test_sixth_try_has_to_wait_even_with_the_right_password(staffed) -> None:
    statuses = [log_in(staffed, "admin", "wrong password").status_code for _ in range(5)]

    waiting = log_in(staffed, "admin", "first password")

    assert statuses == [401] * 5
    assert (waiting.status_code, waiting.json["code"]) == (429, "login_back_off")
    assert int(waiting.headers["Retry-After"]) >= 1
    assert log_in(staffed, "admin", "first password", "127.0.0.6").status_code == 200


def test_new_password_ends_sessions_and_the_old_password(staffed) -> None:
    old = Caller(staffed.app, log_in(staffed, "admin", "first password").json["token"])

    answer = staffed.admin("PATCH", "/v1/operators/admin", {"password": "second password"})

    assert answer.status_code == 204
    assert old("GET", "/v1/devices").status_code == 401
    assert log_in(staffed, "admin", "first password").status_code == 401
    assert log_in(staffed, "admin", "second password").status_code == 200


def test_usual_passwords_are_refused_wherever_one_is_set(staffed) -> None:
    made = staffed.admin("POST", "/v1/operators", {"name": "eve", "password": "Password123!", "role": "viewer"})
    changed = staffed.admin("PATCH", "/v1/operators/admin", {"password": "qwertyuiop"})

    assert [(answer.status_code, answer.json["fields"]) for answer in (made, changed)] == [(422, ["password"])] * 2
    assert "first that would be tried" in made.json["detail"]


def test_operator_is_added_with_a_role_and_removed(staffed) -> None:
    body = {"name": "eve", "password": "correct horse", "role": "viewer"}
    assert staffed.admin("POST", "/v1/operators", body).status_code == 201
    assert staffed.admin("POST", "/v1/operators", body).json["code"] == "operator_exists"
    call = Caller(staffed.app, log_in(staffed, "eve", "correct horse").json["token"])

    assert call("GET", "/v1/devices").status_code == 200
    assert call("POST", "/v1/devices", {"id": "d1"}).status_code == 403
    assert staffed.admin("DELETE", "/v1/operators/eve").status_code == 204
    assert call("GET", "/v1/devices").status_code == 401


def test_password_of_an_older_installation_is_hashed_anew_at_log_in(staffed) -> None:
    query = text("SELECT password_hash FROM operators")
    database = staffed.app.extensions["headwater.database"]
    with database.read() as connection:
        before = connection.execute(query).scalar_one()

    log_in(staffed, "admin", "first password")

    with database.read() as connection:
        after = connection.execute(query).scalar_one()
    assert (before[:7], after[:9]) == ("pbkdf2:", "$argon2id")
    assert log_in(staffed, "admin", "first password").status_code == 200
    assert log_in(staffed, "admin", "wrong password").status_code == 401


def test_many_names_from_one_address_have_to_wait_too(staffed) -> None:
    statuses = [log_in(staffed, f"name{number}", "password1").status_code for number in range(31)]

    assert statuses == [401] * 30 + [429]
    assert log_in(staffed, "admin", "first password", "127.0.0.6").status_code == 200


def person(staffed: Service, **more) -> Caller:
    body = {"name": "eve", "password": "correct horse", "role": "admin"} | more
    assert staffed.admin("POST", "/v1/operators", body).status_code == 201
    return Caller(staffed.app, log_in(staffed, "eve", "correct horse").json["token"])


def test_own_password_is_changed_with_the_old_one_and_ends_other_sessions(staffed) -> None:
    here, there = person(staffed), Caller(staffed.app, log_in(staffed, "eve", "correct horse").json["token"])

    wrong = here("PUT", "/v1/me/password", {"old": "wrong horse", "new": "battery staple"})
    same = here("PUT", "/v1/me/password", {"old": "correct horse", "new": "correct horse"})
    changed = here("PUT", "/v1/me/password", {"old": "correct horse", "new": "battery staple"})

    assert (wrong.json["code"], same.status_code, changed.status_code) == ("login_failed", 422, 204)
    assert here("GET", "/v1/me").json["name"] == "eve"
    assert there("GET", "/v1/me").status_code == 401
    assert log_in(staffed, "eve", "battery staple").status_code == 200


def test_forced_change_comes_before_anything_else(staffed) -> None:
    eve = person(staffed, must_change=True)

    before = eve("GET", "/v1/devices")
    eve("PUT", "/v1/me/password", {"old": "correct horse", "new": "battery staple"})

    assert (before.status_code, before.json["code"]) == (403, "password_change_needed")
    assert eve("GET", "/v1/devices").status_code == 200


def test_sessions_are_listed_and_ended_one_by_one(staffed) -> None:
    here, there = (
        person(staffed),
        Caller(staffed.app, log_in(staffed, "eve", "correct horse", "127.0.0.8").json["token"]),
    )

    listed = here("GET", "/v1/me/sessions").json["items"]
    other = next(each for each in listed if not each["is_this"])
    ended = here("DELETE", f"/v1/me/sessions/{other['id']}")

    assert (len(listed), other["remote_ip"], ended.status_code) == (2, "127.0.0.8", 204)
    assert there("GET", "/v1/me").status_code == 401
    assert here("DELETE", "/v1/me/sessions/%25").json["code"] == "session_not_found"
    assert len(staffed.admin("GET", "/v1/operators/eve/sessions").json["items"]) == 1
    assert staffed.admin("DELETE", "/v1/operators/eve/sessions").status_code == 204
    assert here("GET", "/v1/me").status_code == 401


def test_nobody_ends_the_session_of_another(staffed) -> None:
    eve = person(staffed)
    admin = Caller(staffed.app, log_in(staffed, "admin", "first password").json["token"])
    theirs = admin("GET", "/v1/me/sessions").json["items"][0]["id"]

    assert eve("DELETE", f"/v1/me/sessions/{theirs}").status_code == 404
    assert admin("GET", "/v1/me").status_code == 200


def test_invitation_makes_one_operator_once(staffed) -> None:
    made = staffed.admin("POST", "/v1/invitations", {"name": "ann", "role": "viewer"}).json
    body = {"token": made["token"], "password": "my own password", "remote_ip": "127.0.0.9"}
    listed = staffed.admin("GET", "/v1/invitations").text

    accepted = staffed.internal("POST", "/internal/invitations:accept", body)
    again = staffed.internal("POST", "/internal/invitations:accept", body)

    assert (accepted.json, again.status_code) == ({"name": "ann"}, 404)
    assert made["token"] not in listed
    assert log_in(staffed, "ann", "my own password").json["role"] == "viewer"
    assert staffed.admin("GET", "/v1/invitations").json["items"] == []


def test_invitation_that_was_taken_back_or_is_over_opens_nothing(staffed) -> None:
    made = staffed.admin("POST", "/v1/invitations", {"name": "ann", "role": "viewer"}).json
    staffed.admin("DELETE", "/v1/invitations/ann")
    body = {"token": made["token"], "password": "my own password"}

    assert staffed.internal("POST", "/internal/invitations:accept", body).status_code == 404
    assert staffed.admin("POST", "/v1/invitations", {"name": "a", "role": "viewer", "expires_s": 1}).status_code == 422


def test_token_with_a_scope_does_no_more(staffed) -> None:
    made = staffed.admin("POST", "/v1/tokens", {"name": "t", "role": "admin", "scope": ["devices:read", "tokens:*"]})
    call = Caller(staffed.app, made.json["token"])

    refused = [
        call("POST", "/v1/devices", {"id": "d1"}),
        call("GET", "/v1/device-types"),
        call("GET", "/v1/audit"),
        call("POST", "/v1/tokens", {"name": "up", "role": "admin"}),
    ]

    assert call("GET", "/v1/devices").status_code == call("GET", "/v1/tokens").status_code == 200
    assert [(answer.status_code, answer.json["code"]) for answer in refused] == [(403, "out_of_scope")] * 4
    assert call("GET", "/v1/me").json["scope"] == ["devices:read", "tokens:*"]


def test_last_use_of_a_token_is_told(staffed) -> None:
    made = staffed.admin("POST", "/v1/tokens", {"name": "t", "role": "viewer"}).json
    listed = lambda: {each["name"]: each["last_used"] for each in staffed.admin("GET", "/v1/tokens").json["items"]}  # noqa: E731

    before = listed()["t"]
    Caller(staffed.app, made["token"])("GET", "/v1/devices")

    assert before is None
    assert listed()["t"].startswith("20")


def test_change_of_an_operator_is_audited_with_before_and_after(staffed) -> None:
    person(staffed)
    staffed.admin("PATCH", "/v1/operators/eve", {"role": "viewer", "password": "battery staple"})

    entry = staffed.admin("GET", "/v1/audit?object=eve&action=operator.update").json["items"][0]

    assert entry["detail"] == {
        "changed": ["password_hash", "role"], "before": {"role": "admin"}, "after": {"role": "viewer"},
    }  # fmt: skip


def test_last_of_the_platform_stays(staffed) -> None:
    assert staffed.admin("DELETE", "/v1/operators/admin").json["code"] == "last_admin"
    assert staffed.admin("PATCH", "/v1/operators/admin", {"role": "viewer"}).json["code"] == "last_admin"
    assert log_in(staffed, "admin", "first password").json["role"] == "platform"


@pytest.mark.parametrize("body", [{}, {"password": "short"}, {"password": "x" * 300}, {"role": "root"}])
def test_operator_changes_out_of_bounds_are_refused(staffed, body) -> None:
    assert staffed.admin("PATCH", "/v1/operators/admin", body).status_code == 422


def test_token_is_shown_once_listed_and_revoked_by_id(service) -> None:
    made = service.admin("POST", "/v1/tokens", {"name": "ci", "role": "operator"}).json
    listed = service.admin("GET", "/v1/tokens")

    assert made["token"] not in listed.text
    assert [item["name"] for item in listed.json["items"]] == ["bootstrap", "ci"]
    assert service.admin("POST", "/v1/tokens", {"name": "ci", "role": "viewer"}).json["code"] == "token_exists"
    assert service.admin("DELETE", f"/v1/tokens/{made['id']}").status_code == 204
    assert Caller(service.app, made["token"])("GET", "/v1/devices").status_code == 401
    assert service.admin("DELETE", "/v1/tokens/ci").json["code"] == "token_not_found"


@pytest.mark.parametrize("expires", ["1999-01-01T00:00:00Z", 10**30, -1])
def test_token_that_ends_at_a_wrong_time_is_refused(service, expires) -> None:
    body = {"name": "ci", "role": "viewer", "expires": expires}

    assert service.admin("POST", "/v1/tokens", body).status_code == 422


def test_new_bootstrap_token_takes_the_place_of_the_old(service, config) -> None:
    service.stop()
    again = Service(config.model_copy(update={"operator_token": "another-token"}))
    try:
        assert again.admin("GET", "/v1/tokens").status_code == 401
        names = [item["name"] for item in Caller(again.app, "another-token")("GET", "/v1/tokens").json["items"]]
        assert names == ["bootstrap"]
    finally:
        again.stop()


def test_no_secret_reaches_the_database(service, config) -> None:
    secret = service.register("d1")
    token = service.admin("POST", "/v1/tokens", {"name": "ci", "role": "viewer"}).json["token"]
    service.admin("POST", "/v1/operators", {"name": "eve", "password": "correct horse", "role": "viewer"})

    kept = b"".join(path.read_bytes() for path in config.data.glob("registry.db*"))
    with service.app.extensions["headwater.database"].read() as connection:
        for table in METADATA.sorted_tables:
            kept += repr(connection.execute(table.select()).all()).encode()

    assert b"device.create" in kept
    assert [text for text in (secret, token, ADMIN, "correct horse") if text.encode() in kept] == []


def test_checks_at_once_are_bounded_for_an_address_and_in_all() -> None:
    checks = Checks()
    with ExitStack() as taken:
        for number in range(CHECKS_OF_ADDRESS):
            taken.enter_context(checks.one_of(f"2001:db8::{number}"))
        with pytest.raises(TooManyRequests), checks.one_of("2001:db8::f"):
            pass
        for number in range(CHECKS_AT_ONCE - CHECKS_OF_ADDRESS):
            taken.enter_context(checks.one_of(f"other{number}"))
        with pytest.raises(TooManyRequests), checks.one_of("late"):
            pass

    with checks.one_of("2001:db8::1"):
        pass


def test_flood_of_logins_is_told_to_wait_instead_of_taking_every_thread(staffed) -> None:
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda number: log_in(staffed, f"n{number}", "wrong password").status_code, range(24)))

    assert set(statuses) == {401, 429}
