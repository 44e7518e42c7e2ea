from __future__ import annotations

import pytest

from chassis.web import SESSION_COOKIE
from dashboard_api.session import safe_next
from tests.dashboard_api.fakes import PASSWORD

OURS = {"Origin": "http://localhost"}


def log_in(client, password=PASSWORD, **more):
    return client.post("/login", data={"name": "admin", "password": password} | more, headers=OURS)


def test_right_password_opens_a_session_and_goes_on(client):
    answer = log_in(client, next="/devices?q=a")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/devices?q=a")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{SESSION_COOKIE}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "Max-Age=36" in cookie or "Max-Age=35" in cookie
    assert client.get("/v1/session").json == {"name": "admin", "role": "admin", "tenant": "default"}


def test_cookie_is_secure_behind_https(client):
    answer = client.post(
        "/login",
        data={"name": "admin", "password": PASSWORD},
        headers={"Origin": "https://localhost", "X-Forwarded-Proto": "https"},
    )

    assert "Secure" in answer.headers["Set-Cookie"].split("; ")


@pytest.mark.parametrize(
    ("password", "status", "said"), [("wrong", 401, "do not fit"), ("too often", 429, "Too many"), ("", 422, "both")]
)
def test_refused_log_in_says_why_and_sets_nothing(client, password, status, said):
    answer = log_in(client, password)

    assert answer.status_code == status
    assert said in answer.text
    assert "Set-Cookie" not in answer.headers


def test_log_in_without_the_registry_says_so(client, platform):
    platform.away.add("devices")

    answer = log_in(client)

    assert answer.status_code == 503
    assert "does not answer" in answer.text


def test_log_in_from_a_foreign_page_is_refused(client):
    answer = client.post("/login", data={"name": "a", "password": PASSWORD}, headers={"Origin": "https://evil.example"})

    assert answer.status_code == 403


def test_log_out_ends_the_session_in_the_registry(client, platform):
    log_in(client)
    sessions = len(platform.sessions)

    answer = client.post("/logout", headers=OURS)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?out")
    assert len(platform.sessions) == sessions - 1
    assert client.get_cookie(SESSION_COOKIE) is None


def test_typed_name_is_kept_and_escaped(client):
    answer = client.post("/login", data={"name": '"><script>', "password": "wrong"}, headers=OURS)

    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text


def test_page_without_session_leads_to_log_in_and_back(client):
    answer = client.get("/devices?q=a&tag=site:b")

    assert answer.status_code == 303
    assert answer.headers["Location"] == "/login?next=%2Fdevices%3Fq%3Da%26tag%3Dsite%3Ab"


def test_session_that_is_over_leads_to_log_in_behind_a_guesser_too(client):
    guesses = [client.get("/v1/session", headers={"Authorization": f"Bearer wrong-{number}"}) for number in range(101)]
    client.set_cookie(SESSION_COOKIE, "over")

    answer = client.get("/devices")

    assert guesses[-1].json["code"] == "token_back_off"
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2Fdevices")
    upgrade = {"Authorization": "Bearer wrong", "Connection": "Upgrade", "Upgrade": "websocket"}
    assert client.get("/v1/feed", headers=upgrade).status_code == 429


def test_link_from_elsewhere_is_asked_again_with_the_cookie(client):
    answer = client.get('/devices?q="><script>', headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0;url=/devices?q=' in answer.text
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "asked",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\tx",
        "evil",
        "",
        None,
        "javascript:alert(1)",
        "/\r\nx: y",
    ],
)
def test_only_paths_of_this_site_are_gone_back_to(asked):
    assert safe_next(asked) == "/"


def test_who_has_a_session_needs_no_form(client):
    log_in(client)

    answer = client.get("/login?next=/quarantine")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/quarantine")


def test_cookies_tried_at_the_log_in_form_count_as_guesses_and_it_is_shown_all_the_same(client):
    for number in range(101):
        client.set_cookie(SESSION_COOKIE, f"wrong-{number}")
        assert client.get("/login").status_code == 200

    guess = client.get("/v1/session", headers={"Authorization": "Bearer wrong"})

    assert guess.json["code"] == "token_back_off"
