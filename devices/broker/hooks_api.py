"""Routes that EMQX and RabbitMQ ask, each in its own form (docs/brokers.md). Internal; the gateway does not route them.

On a 4xx or 5xx EMQX lets its next authenticator decide, and RabbitMQ refuses. So every answer is a 200 that says allow
or deny, whatever happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, request

from chassis import logs
from chassis.metrics import Counter
from chassis.tokens import is_same
from chassis.web import Api, Call, answer
from devices.broker.hooks import BrokerHooks
from devices.broker.rights import Action, topics_of
from wire.clock import NS_PER_S
from wire.errors import HeadwaterError

log = logs.get(__name__)
ASKED = Counter("headwater_broker_hooks", "Questions of a broker, by answer", ["question", "answer"])
MAX_BODY = 64 * 1024
DENY_EMQX = {"result": "deny", "is_superuser": False}
# MQTT's `/` is AMQP's `.` there, and a `.` of MQTT a `/`: with dots in it, an id could pass for the topic of another.
AMQP_SEPARATOR = "."
MQTT_EXCHANGE = "amq.topic"
QUEUES_OF_A_CLIENT = ("mqtt-subscription-{id}qos0", "mqtt-subscription-{id}qos1")
_ACTIONS: dict[str, Action] = {"write": "publish", "read": "subscribe"}


def add_routes(api: Api, hooks: BrokerHooks, token: str) -> None:
    """Declare the routes; `token` is what the broker shows: a bearer for EMQX, a part of the path for RabbitMQ."""
    _add_emqx(api, hooks, token)
    _add_rabbitmq(api, hooks, token)


def _add_emqx(api: Api, hooks: BrokerHooks, token: str) -> None:
    @api.route("POST", "/internal/broker/emqx", "own")
    def ask_emqx(call: Call) -> Response:
        """Authenticate a client of EMQX and tell its whole ACL in one answer."""
        presented = request.headers.get("Authorization", "")[7:]
        told = _safely("emqx", DENY_EMQX, lambda: _tell_emqx(hooks, call) if is_same(presented, token) else DENY_EMQX)
        ASKED.labels("emqx", told["result"]).inc()
        return answer(told)


def _tell_emqx(hooks: BrokerHooks, call: Call) -> dict[str, Any]:
    request.max_content_length = MAX_BODY
    asked = request.get_json(silent=True)
    names = ("username", "password", "clientid")
    username, password, client = (str(asked.get(name) or "") if isinstance(asked, dict) else "" for name in names)
    credential = hooks.credential_of(username, password, call.remote_ip) if username and client == username else None
    if credential is None:
        return DENY_EMQX
    rules: list[dict[str, str]] = []
    claimed = hooks.claimed(username)
    for action in ("publish", "subscribe"):
        topics = topics_of(username, action, claimed)
        rules += [{"permission": "allow", "action": action, "topic": topic} for topic in topics]
    rules.append({"permission": "deny", "action": "all", "topic": "#"})
    told = {"result": "allow", "is_superuser": False, "acl": rules}
    ends_ns = credential.not_after_ns
    return told if ends_ns is None else told | {"expire_at": ends_ns // NS_PER_S}


def _add_rabbitmq(api: Api, hooks: BrokerHooks, token: str) -> None:
    for question, decide in _RABBITMQ.items():

        @api.route("POST", f"/internal/broker/<token>/rabbitmq/{question}", "own")
        def ask_rabbitmq(
            call: Call, question: str = question, decide: Callable[[BrokerHooks, str, Call], bool] = decide
        ) -> Response:
            """Answer RabbitMQ's auth_backend_http."""
            request.max_content_length = MAX_BODY
            is_ours = is_same(call.path["token"], token)
            is_allowed = _safely("rabbitmq", False, lambda: is_ours and decide(hooks, _username(), call))
            told = "allow" if is_allowed else "deny"
            ASKED.labels(f"rabbitmq_{question}", told).inc()
            return Response(told, mimetype="text/plain")


def _username() -> str:
    username = request.form.get("username", "")
    return "" if AMQP_SEPARATOR in username else username


def _is_user(hooks: BrokerHooks, username: str, call: Call) -> bool:
    client = request.form.get("client_id", username)
    password = request.form.get("password", "")
    return client == username and hooks.credential_of(username, password, call.remote_ip) is not None


def _may_enter(hooks: BrokerHooks, username: str, _call: Call) -> bool:
    return hooks.is_admitted(username)


def _may_use(hooks: BrokerHooks, username: str, _call: Call) -> bool:
    """Let a client use MQTT's exchange (its topics are asked for one by one) and the queues made for itself."""
    resource, name = request.form.get("resource", ""), request.form.get("name", "")
    if resource == "exchange":
        is_its = name == MQTT_EXCHANGE and request.form.get("permission") in _ACTIONS
    else:
        is_its = resource == "queue" and name in [queue.replace("{id}", username) for queue in QUEUES_OF_A_CLIENT]
    return is_its and hooks.is_admitted(username)


def _may_topic(hooks: BrokerHooks, username: str, _call: Call) -> bool:
    action, key = _ACTIONS.get(request.form.get("permission", "")), request.form.get("routing_key", "")
    if action is None or request.form.get("name") != MQTT_EXCHANGE:
        return False
    topic = key.replace("/", "\0").replace(AMQP_SEPARATOR, "/").replace("\0", AMQP_SEPARATOR)
    return hooks.may(username, action, topic.replace("*", "+"))


_RABBITMQ: dict[str, Callable[[BrokerHooks, str, Call], bool]] = {
    "user": _is_user,
    "vhost": _may_enter,
    "resource": _may_use,
    "topic": _may_topic,
}


def _safely(broker: str, refusal: Any, decide: Callable[[], Any]) -> Any:
    """Give the decision, or the refusal when anything fails: closed, never open."""
    try:
        return decide()
    except HeadwaterError as error:
        log.warning("broker_hook_refused", broker=broker, code=error.code)
    except Exception:  # the edge of a request: whatever it is, the broker is told no
        log.fault("broker_hook_fault", broker=broker)
    return refusal
