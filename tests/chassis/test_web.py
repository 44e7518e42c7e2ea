from __future__ import annotations

import gzip
import io
import json
import threading
from typing import Any

import pytest
from flask import request
from flask.testing import FlaskClient
from pydantic import BaseModel, ConfigDict, Field

from chassis import bodies, web
from chassis.services import Services
from tests.support.tiny_loop import TinyLoop
from wire.devices import Principal
from wire.errors import TooManyRequests

TOKENS = {role: Principal(id=role, name=role, role=role) for role in ("viewer", "operator", "admin")}  # type: ignore[arg-type]


class Tokens:
    def check(self, token: str, remote_ip: str = "") -> Principal | None:
        return TOKENS.get(token)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=5)


class Query(BaseModel):
    tag: list[str] = []
    limit: int = 10


def make_api() -> web.Api:
    api = web.Api()

    @api.route("POST", "/v1/things", "operator", body=Body, answers={201: Body})
    def create(call: web.Call) -> Body:
        """Create a thing."""
        return Body(name=call.body.name)

    @api.route("GET", "/v1/things/<thing_id>", "viewer", query=Query)
    def read(call: web.Call) -> dict[str, Any]:
        """Read a thing."""
        return {"id": call.path["thing_id"], "tag": call.query.tag, "by": call.actor.name}

    @api.route("POST", "/v1/raw", "public")
    def raw(call: web.Call) -> dict[str, int]:
        """Take bytes."""
        return {"size": len(bodies.read_body(1_000))}

    @api.route("GET", "/internal/secret", "service")
    def internal(call: web.Call) -> None:
        """For services."""

    @api.route("GET", "/v1/broken", "public")
    def broken(call: web.Call) -> None:
        """Break."""
        raise ZeroDivisionError

    @api.route("GET", "/v1/busy", "public")
    def busy(call: web.Call) -> None:
        """Be busy."""
        raise TooManyRequests("3 requests in 1 s, limit 2", retry_after_s=7)

    return api


@pytest.fixture
def client() -> FlaskClient:
    edge = web.Edge("things", Services("", "service-secret"), Tokens(), lambda: {"store": "ok"}, max_body_bytes=5_000)
    return web.create_app(edge, make_api()).test_client()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("token", "status"), [("", 401), ("wrong", 401), ("viewer", 403), ("operator", 201), ("admin", 201)]
)
def test_role_is_checked(client: FlaskClient, token: str, status: int) -> None:
    answer = client.post("/v1/things", json={"name": "a"}, headers=bearer(token))

    assert answer.status_code == status
    assert (answer.mimetype == web.PROBLEM_JSON) == (status >= 400)


def test_wrong_tokens_have_to_wait_and_right_ones_beside_them_never(client: FlaskClient) -> None:
    guesses = [client.get("/v1/things/1", headers=bearer(f"wrong-{number}")) for number in range(102)]
    client.set_cookie(web.SESSION_COOKIE, "over")
    over = client.get("/v1/things/1")

    assert [answer.status_code for answer in guesses] == [401] * 100 + [429] * 2
    assert guesses[-1].get_json()["code"] == over.get_json()["code"] == "token_back_off"
    assert int(guesses[-1].headers["Retry-After"]) > 0
    for role in ("viewer", "admin"):  # neither needs to have been seen before
        assert client.get("/v1/things/1", headers=bearer(role)).status_code == 200
    elsewhere = {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}
    assert client.get("/v1/things/1", headers=bearer("wrong"), **elsewhere).status_code == 401


def test_who_presents_nothing_is_no_guesser(client: FlaskClient) -> None:
    answers = {client.get("/v1/things/1").status_code for _ in range(150)}

    assert answers == {401}
    assert client.get("/v1/things/1", headers=bearer("wrong")).status_code == 401


@pytest.mark.parametrize(("token", "status"), [("admin", 401), ("service-secret", 204)])
def test_internal_routes_take_the_service_token_only(client: FlaskClient, token: str, status: int) -> None:
    assert client.get("/internal/secret", headers=bearer(token)).status_code == status


def test_wrong_tokens_of_services_have_to_wait_and_right_ones_never(client: FlaskClient) -> None:
    guesses = [client.get("/internal/secret", headers=bearer(f"wrong-{number}")) for number in range(102)]

    assert [answer.status_code for answer in guesses] == [401] * 100 + [429] * 2
    assert client.get("/internal/secret", headers=bearer("service-secret")).status_code == 204
    assert client.get("/v1/things/1", headers=bearer("viewer")).status_code == 200
    assert client.get("/internal/secret").status_code == 401


@pytest.mark.parametrize(
    ("origin", "scheme", "status"),
    [("http", "http", 201), ("https", "https", 201), ("http", "https", 403), ("https", "http", 201)],
)
def test_a_page_without_tls_is_none_of_a_site_with_it(
    client: FlaskClient, origin: str, scheme: str, status: int
) -> None:
    """A proxy before the gateway may have ended the TLS: a page with it may be of a site that is asked without."""
    client.set_cookie(web.SESSION_COOKIE, "operator")
    headers = {"Origin": f"{origin}://localhost", "X-Forwarded-Proto": scheme}

    assert client.post("/v1/things", json={"name": "a"}, headers=headers).status_code == status


@pytest.mark.parametrize(("origin", "status"), [("http://localhost", 201), ("http://evil.example", 403), (None, 403)])
def test_session_changes_need_our_own_origin(client: FlaskClient, origin: str | None, status: int) -> None:
    client.set_cookie(web.SESSION_COOKIE, "operator")

    answer = client.post("/v1/things", json={"name": "a"}, headers={"Origin": origin} if origin else {})

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "bad_syntax"),
        (b'{"name":"too long"}', 422, "unprocessable"),
        (b'{"name":"a","b":1}', 422, "unprocessable"),
        (b"x" * 6_000, 413, "too_large"),
    ],
)
def test_a_bad_body_is_named(client: FlaskClient, content: bytes, status: int, code: str) -> None:
    answer = client.post("/v1/things", data=content, headers=bearer("admin"))

    assert (answer.status_code, answer.json and answer.json["code"]) == (status, code)


def test_query_lists_repeat_and_bad_ones_are_named(client: FlaskClient) -> None:
    good = client.get("/v1/things/x?tag=a&tag=b", headers=bearer("viewer"))
    bad = client.get("/v1/things/x?limit=many", headers=bearer("viewer"))

    assert good.json == {"id": "x", "tag": ["a", "b"], "by": "viewer"}
    assert bad.status_code == 400
    assert bad.json is not None
    assert bad.json["fields"] == ["limit"]


@pytest.mark.parametrize(
    ("content", "encoding", "status"),
    [
        (b"plain", "identity", 200),
        (gzip.compress(b"x" * 999, mtime=0), "gzip", 200),
        (gzip.compress(b"x" * 1_000_000, mtime=0), "gzip", 413),
        (b"not gzip", "gzip", 400),
        (gzip.compress(b"x" * 999, mtime=0)[:-9], "gzip", 400),
        (b"x", "br", 415),
    ],
)
def test_bodies_inflate_up_to_the_cap(client: FlaskClient, content: bytes, encoding: str, status: int) -> None:
    answer = client.post("/v1/raw", data=content, headers={"Content-Encoding": encoding})

    assert answer.status_code == status


def test_nul_in_a_path_is_nobodys_name(client: FlaskClient) -> None:
    answer = client.get("/v1/things/a%00b", headers={"Authorization": "Bearer viewer"})

    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v1/raw", "/v1/things"])
def test_multipart_is_not_taken(client: FlaskClient, path: str) -> None:
    parts = {"name": (io.BytesIO(b"x" * 100), "a.txt")}

    answer = client.post(path, data=parts, headers={"Authorization": "Bearer operator"})

    assert (answer.status_code, answer.get_json()["code"]) == (415, "media_type")


def test_faults_and_limits_become_problem_documents(client: FlaskClient) -> None:
    broken, busy, missing = client.get("/v1/broken"), client.get("/v1/busy"), client.get("/v1/none")
    wrong_method = client.delete("/v1/busy")

    assert [a.status_code for a in (broken, busy, missing, wrong_method)] == [500, 429, 404, 405]
    assert busy.headers["Retry-After"] == "7"
    assert "GET" in wrong_method.headers["Allow"]
    assert all(a.mimetype == web.PROBLEM_JSON for a in (broken, busy, missing, wrong_method))


def test_probes_and_metrics_answer(client: FlaskClient) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz?verbose").json == {"service": "things", "ready": True, "checks": {"store": "ok"}}
    assert b"headwater_http_requests_total" in client.get("/metrics").data


def test_a_failing_check_is_not_ready() -> None:
    edge = web.Edge("things", "s", Tokens(), lambda: {"store": "no such file"})

    answer = web.create_app(edge, make_api()).test_client().get("/readyz?verbose")

    assert (answer.status_code, answer.json and answer.json["checks"]) == (503, {"store": "no such file"})


def test_a_thread_that_has_ended_makes_a_service_unready() -> None:
    class Threads:
        alive = True

        def are_alive(self) -> bool:
            return self.alive

    app = web.create_app(web.Edge("things", "s", Tokens(), lambda: {"store": "ok"}), make_api())
    threads = app.extensions["headwater.workers"] = Threads()
    before = app.test_client().get("/readyz").status_code
    threads.alive = False

    answer = app.test_client().get("/readyz?verbose")

    assert (before, answer.status_code) == (200, 503)
    assert answer.json
    assert answer.json["checks"]["threads"] == "a background thread has ended"


def test_openapi_describes_public_operations(client: FlaskClient) -> None:
    document = json.loads(client.get("/openapi.json").data)

    assert "/internal/secret" not in document["paths"]
    create = document["paths"]["/v1/things"]["post"]
    assert create["summary"] == "Create a thing."
    assert create["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Body"}
    assert document["components"]["schemas"]["Body"]["properties"]["name"]["maxLength"] == 5
    names = [parameter["name"] for parameter in document["paths"]["/v1/things/{thing_id}"]["get"]["parameters"]]
    assert names == ["thing_id", "tag", "limit"]


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [("/v1/things", "nobody", 401), ("/v1/things", "operator", 413), ("/v1/absent", "operator", 404)],
)
def test_a_refused_body_is_read_to_its_end(client: FlaskClient, path: str, token: str, status: int) -> None:
    sent = io.BytesIO(b" " * 2_000_000)

    answer = client.post(path, input_stream=sent, content_length=2_000_000, headers=bearer(token))

    assert (answer.status_code, sent.read()) == (status, b"")


def test_a_body_that_breaks_off_is_still_answered(client: FlaskClient) -> None:
    answer = client.post("/v1/things", input_stream=Broken(), content_length=2_000_000, headers=bearer("nobody"))

    assert answer.status_code == 401


def test_on_an_event_loop_a_handler_gets_a_thread_unless_it_blocks_nowhere() -> None:
    api, loop = web.Api(), TinyLoop()
    answers: list[Any] = []

    @api.route("GET", "/v1/slow", "public")
    def slow(_call: web.Call) -> dict[str, str]:
        """Block."""
        return {"thread": threading.current_thread().name, "asked": request.args["asked"]}

    @api.route("GET", "/v1/swift", "public", is_on_loop=True)
    def swift(_call: web.Call) -> dict[str, str]:
        """Block nowhere."""
        return {"thread": threading.current_thread().name, "asked": request.args["asked"]}

    asking = web.create_app(web.Edge("things", "s", Tokens(), dict), api).test_client()
    for path in ("/v1/slow?asked=1", "/v1/swift?asked=2"):
        loop.begin(lambda path=path: answers.append(asking.get(path).json))
    loop.run_until(lambda: len(answers) == 2)

    assert {each["asked"]: each["thread"] for each in answers} == {"1": "tiny_0", "2": "MainThread"}


class Broken(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise ConnectionResetError
