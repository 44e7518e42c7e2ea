"""The hooks by the brokers' documented requests, and RabbitMQ's MQTT plugin for real (test_rabbitmq.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.broker.rights import READS, WRITES, may
from devices.presence.store import PresenceStore
from devices.rows import Who
from devices.tenants.store import TenantStore
from tests.devices.running import Caller, Service
from tests.support.waiting import wait_until
from wire.group_keys import derive_key, read_key
from wire.tenants import Limits, TenantPatch

TOKEN = "hook-token-of-the-tests"
EMQX = "/internal/broker/emqx"
RABBIT = f"/internal/broker/{TOKEN}/rabbitmq"


@pytest.fixture
def service(sqlite_config):
    more = {"broker_auth": "http-hooks", "broker_hook_token": TOKEN, "registry_key": "k" * 43}
    started = Service(sqlite_config.model_copy(update=more))
    yield started
    started.stop()


def ask_emqx(service: Service, body: Any, token: str = TOKEN) -> Any:
    """As EMQX asks with the template of its documentation (access-control/authn/http)."""
    answer = Caller(service.app, token)("POST", EMQX, body)
    assert answer.status_code == 200
    return answer.json


def ask_rabbitmq(service: Service, question: str, path: str = RABBIT, **form: str) -> str:
    """As rabbitmq-auth-backend-http asks with `http_method = post`."""
    answer = Caller(service.app, None)("POST", f"{path}/{question}", data=form)
    assert answer.status_code == 200
    return answer.get_data(as_text=True)


def log_in(name: str, secret: str, client: str | None = None) -> dict[str, str]:
    return {"username": name, "password": secret, "clientid": client or name, "peerhost": "127.0.0.1"}


def test_rights_are_those_of_the_file_for_mosquitto() -> None:
    lines = (Path(__file__).parents[3] / "compose/broker.acl").read_text().splitlines()
    rights = {tuple(line.split()[1:]) for line in lines if line.startswith("pattern ")}

    assert rights == {("write", topic.replace("{id}", "%u")) for topic in WRITES} | {
        ("read", topic.replace("{id}", "%u")) for topic in READS
    }


@given(st.lists(st.sampled_from(["devices", "d1", "d2", "+", "#", "telemetry", "status", "commands", "x", ""])))
def test_no_filter_reaches_out_of_the_own_branch(levels: list[str]) -> None:
    topic = "/".join(levels)

    if may("d1", "subscribe", topic) or may("d1", "publish", topic):
        assert levels[:2] == ["devices", "d1"]
        assert "#" not in levels


def test_emqx_is_told_the_whole_acl_of_a_device(service) -> None:
    secret = service.register("d1")

    told = ask_emqx(service, log_in("d1", secret))

    assert (told["result"], told["is_superuser"]) == ("allow", False)
    assert {"permission": "allow", "action": "publish", "topic": "devices/d1/telemetry"} in told["acl"]
    assert told["acl"][-1] == {"permission": "deny", "action": "all", "topic": "#"}


@pytest.mark.parametrize(
    "body",
    [{}, [], log_in("d1", "wrong"), log_in("d1", ""), log_in("nobody", "x"), log_in("d1/+", "x"), {"username": None}],
)
def test_emqx_is_told_deny_in_a_200(service, body) -> None:
    service.register("d1")

    assert ask_emqx(service, body)["result"] == "deny"


def test_client_id_and_token_must_be_right(service) -> None:
    secret = service.register("d1")

    assert ask_emqx(service, log_in("d1", secret, client="d2"))["result"] == "deny"
    assert ask_emqx(service, log_in("d1", secret), token="other")["result"] == "deny"
    assert ask_rabbitmq(service, "user", "/internal/broker/other/rabbitmq", username="d1", password=secret) == "deny"


def test_disabled_device_is_denied_and_enabled_one_is_back(service) -> None:
    secret = service.register("d1")
    service.admin("POST", "/v1/devices/d1:disable")
    assert ask_emqx(service, log_in("d1", secret))["result"] == "deny"

    service.admin("POST", "/v1/devices/d1:enable")
    assert ask_emqx(service, log_in("d1", secret))["result"] == "allow"


def test_validity_of_a_credential_is_told_as_expiry(service) -> None:
    service.register("d1")
    answer = service.admin("POST", "/v1/devices/d1/credentials", {"not_after": "2100-01-01T00:00:00Z"})

    assert ask_emqx(service, log_in("d1", answer.json["credential"]["secret"]))["expire_at"] == 4_102_444_800


def test_unknown_device_with_a_derived_key_is_registered_at_connect(service) -> None:
    made = service.admin("POST", "/v1/enrolments", {"name": "pumps", "kind": "group", "policy": "hold"})
    key = derive_key(read_key(made.json["secret"]), "pump-1")

    assert ask_emqx(service, log_in("pump-2", key))["result"] == "deny"
    assert ask_emqx(service, log_in("pump-1", key))["result"] == "allow"
    assert [item["id"] for item in service.admin("GET", "/v1/holds").json["items"]] == ["pump-1"]


def test_backend_that_is_away_denies(service) -> None:
    secret = service.register("d1")
    service.config.data.joinpath("registry.db").rename(service.config.data / "gone.db")
    service.config.data.joinpath("registry.db").mkdir()
    service.app.extensions["headwater.database"].close()  # last, or a worker opens once more what goes away

    assert ask_emqx(service, log_in("d1", secret))["result"] == "deny"
    assert ask_rabbitmq(service, "user", username="d1", password=secret) == "deny"


@pytest.mark.parametrize(
    ("question", "form", "told"),
    [
        ("vhost", {"vhost": "/", "ip": "127.0.0.1"}, "allow"),
        ("resource", {"resource": "exchange", "name": "amq.topic", "permission": "write"}, "allow"),
        ("resource", {"resource": "exchange", "name": "amq.topic", "permission": "configure"}, "deny"),
        ("resource", {"resource": "exchange", "name": "amq.direct", "permission": "write"}, "deny"),
        ("resource", {"resource": "queue", "name": "mqtt-subscription-d1qos1", "permission": "read"}, "allow"),
        ("resource", {"resource": "queue", "name": "mqtt-subscription-d1qosXqos1", "permission": "read"}, "deny"),
        ("resource", {"resource": "queue", "name": "mqtt-subscription-d2qos1", "permission": "read"}, "deny"),
        ("topic", {"name": "amq.topic", "permission": "write", "routing_key": "devices.d1.telemetry"}, "allow"),
        ("topic", {"name": "amq.topic", "permission": "write", "routing_key": "devices.d2.telemetry"}, "deny"),
        ("topic", {"name": "amq.topic", "permission": "read", "routing_key": "devices.d1.commands.*"}, "allow"),
        ("topic", {"name": "amq.topic", "permission": "read", "routing_key": "devices.d1.#"}, "deny"),
        ("topic", {"name": "amq.topic", "permission": "odd", "routing_key": "devices.d1.telemetry"}, "deny"),
        ("topic", {}, "deny"),
    ],
)
def test_rabbitmq_is_answered(service, question, form, told) -> None:
    service.register("d1")

    assert ask_rabbitmq(service, question, username="d1", **form) == told
    assert ask_rabbitmq(service, question, username="nobody", **form) == "deny"


def test_id_with_a_dot_stays_out_of_rabbitmq(service) -> None:
    secret = service.register("a.media")

    assert ask_rabbitmq(service, "user", username="a.media", password=secret) == "deny"


def test_claimed_topics_are_in_what_both_brokers_are_told(service) -> None:
    secret, _ = service.register("d1"), service.register("d2")
    body = {"filter": "spBv1.0/Plant A/#", "protocol": "tasmota"}
    service.admin("POST", "/v1/devices/d1/topics", body)

    told = ask_emqx(service, log_in("d1", secret))["acl"]
    # RabbitMQ's plugin swaps `/` and `.`, and writes `*` for `+`.
    key = {"resource": "topic", "name": "amq.topic", "vhost": "/", "routing_key": "spBv1/0.Plant A.NDATA.n"}
    answers = [
        ask_rabbitmq(service, "topic", username=name, permission=permission, **key)
        for name in ("d1", "d2")
        for permission in ("write", "read")
    ]
    beyond = ask_rabbitmq(service, "topic", username="d1", permission="read", **key | {"routing_key": "#"})

    rules = [{"permission": "allow", "action": each, "topic": body["filter"]} for each in ("publish", "subscribe")]
    states = {"permission": "allow", "action": "subscribe", "topic": "spBv1.0/STATE/+"}  # of hosts: all may hear them
    assert [rule for rule in told if rule["topic"].startswith("spB") and rule != states] == rules
    assert (answers, beyond) == (["allow", "allow", "deny", "deny"], "deny")
    service.admin("POST", "/v1/devices/d1:disable")
    assert ask_rabbitmq(service, "topic", username="d1", permission="write", **key) == "deny"


def test_device_that_is_let_in_has_used_its_credential(service) -> None:
    secret = service.register("d1")
    ask_emqx(service, log_in("d1", "wrong"))
    ask_emqx(service, log_in("d1", secret))

    def used() -> list[bool]:
        held = service.admin("GET", "/v1/devices/d1/credentials").json["items"]
        return [each["last_used"] is not None for each in held]

    wait_until(lambda: used() == [True])


def test_devices_of_a_tenant_that_is_full_are_denied(service) -> None:
    secrets = {name: service.register(name) for name in ("d1", "d2")}
    database = service.app.extensions["headwater.database"]
    TenantStore(database).update("default", TenantPatch(limits=Limits(connections=1)), Who("test"))
    assert ask_emqx(service, log_in("d2", secrets["d2"]))["result"] == "allow"

    PresenceStore(database).change(["d1"], lambda _device, mark: replace(mark, online=True, connected=True))

    assert ask_emqx(service, log_in("d2", secrets["d2"]))["result"] == "deny"
    assert ask_rabbitmq(service, "user", username="d2", password=secrets["d2"]) == "deny"
    assert ask_emqx(service, log_in("d1", secrets["d1"]))["result"] == "allow"


def test_limit_of_connections_that_nobody_counts_is_refused(service) -> None:
    limits = {"limits": {"connections": 5}}
    made = service.admin("POST", "/v1/tenants", {"id": "acme"} | limits)
    changed = service.admin("PATCH", "/v1/tenants/default", limits)

    assert {(each.status_code, each.json["code"]) for each in (made, changed)} == {(422, "connections_unknown")}
    assert service.admin("PATCH", "/v1/tenants/default", {"limits": {"connections": None}}).status_code == 200
