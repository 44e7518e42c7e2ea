"""Access by mosquitto's dynamic security plugin: for a broker on another machine, whose files are out of reach.

Measured on 2.0.11 (Debian): the plugin writes its whole file at every command, while everybody waits: 189 devices/s at
500, 55/s at 2,000. `%u` is not substituted in its topics, so each device has a role of its own. Commands go in batches,
with rests between them. It wants a plain password and makes the hash itself; so in this mode the secrets that were
issued lie sealed in the registry (`Write.seal`), never plain.

What the broker holds of a device is told by its `textname`, a digest of what was set: a restart here sets nothing anew.
"""

from __future__ import annotations

import hashlib
import queue
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import orjson
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from chassis import logs
from chassis.metrics import Gauge
from chassis.settings import split_address
from devices.broker.rights import READS, WRITES, topics_of
from wire import topics
from wire.claims import Claim, asked, heard, reached
from wire.errors import Unavailable

log = logs.get(__name__)
CONTROL = "$CONTROL/dynamic-security/v1"
BATCH = 20  # commands at once: the broker serves nobody else meanwhile
REST_S = 0.1  # between two batches
ANSWER_S = 10.0
PAGE = 1_000
ROLE = "device-"
HEARS, SPEAKS, BRIDGE = "claimed-topics-heard", "claimed-topics-reached", "_bridge"
UNSET = Gauge(
    "headwater_broker_access_unset", "Devices whose secret is not known to be set", multiprocess_mode="mostrecent"
)
Command = dict[str, Any]


class DynamicSecurity:
    """A BrokerAuth for mosquitto's plugin. All its methods but the constructor run in one thread."""

    def __init__(
        self, broker: str, credential: tuple[str, str], reveal: Callable[[str], str | None], control: str = "_control"
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            broker: host:port.
            credential: user name and password of a client with the role `admin`.
            reveal: gives the plain secret of what the registry holds for the broker; None when only a hash is there.
            control: user name of the client that speaks to devices.
        """
        self._address = split_address(broker, topics.MQTT_PORT)
        self._credential = credential
        self._reveal = reveal
        self._control = control
        self._claims: Sequence[Claim] = ()

    def grant(self, claims: Sequence[Claim]) -> None:
        """See BrokerAuth."""
        self._claims = claims

    def replace(self, users: Sequence[tuple[str, str]]) -> None:
        """See BrokerAuth.

        Raises:
            Unavailable: the broker does not answer; the next call goes on where this one stopped.
        """
        claimed: defaultdict[str, list[str]] = defaultdict(list)
        for claim in self._claims:
            claimed[claim.device].append(claim.filter)
        with _Control(self._address, self._credential) as control:
            held = control.devices()
            wanted = {name: _Wanted(form, claimed[name]) for name, form in users}
            control.run([_forget(name) for name in held if name not in wanted])
            changed = [(name, each) for name, each in wanted.items() if held.get(name) != each.mark]
            commands, unset = [], 0
            for name, each in changed:
                secret = self._reveal(each.form)
                if secret is None:
                    unset += 1
                else:
                    commands.append(_set(name, secret, each, is_new=name not in held))
            control.run([*_families(self._claims, self._control, control.role), *commands])
        UNSET.set(unset)
        if unset:
            log.warning("broker_secrets_unknown", devices=unset)

    def review(self) -> None:
        """See BrokerAuth."""

    def settle(self) -> None:
        """See BrokerAuth."""


class _Control:
    """A connection to the plugin's topic for as long as the list is compared and mended."""

    def __init__(self, address: tuple[str, int], credential: tuple[str, str]) -> None:
        self._answers: queue.Queue[Any] = queue.Queue()
        self._is_ready = threading.Event()
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"{credential[0]}-access")
        client.username_pw_set(*credential)
        client.on_connect = self._subscribe
        client.on_subscribe = lambda *_: self._is_ready.set()
        client.on_message = lambda _client, _data, message: self._answers.put(orjson.loads(message.payload))
        self._address = address

    def _subscribe(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(f"{CONTROL}/response", 1)

    def __enter__(self) -> Self:
        try:
            self._client.connect(*self._address)
        except OSError as error:
            raise Unavailable(f"the broker does not answer: {error}", code="broker_unavailable") from error
        self._client.loop_start()
        if not self._is_ready.wait(ANSWER_S):
            self.__exit__()
            raise Unavailable("the broker does not take our log-in", code="broker_unavailable")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def devices(self) -> dict[str, str]:
        """Give the devices that the broker knows, each with the digest of what is set."""
        found: dict[str, str] = {}
        while True:
            listing = {"command": "listClients", "verbose": True, "count": PAGE, "offset": len(found)}
            [answer] = self._ask([listing])
            clients = answer["data"]["clients"]
            found |= {client["username"]: client.get("textname", "") for client in clients}
            if len(clients) < PAGE:
                break
        # Others than devices (the platform's services, an administrator) are no business of ours.
        return {name: digest for name, digest in found.items() if digest.startswith(ROLE)}

    def role(self, name: str) -> str:
        """Give the digest of what is set of a role; empty when there is none."""
        [answer] = self._ask([{"command": "getRole", "rolename": name}])
        return str(answer.get("data", {}).get("role", {}).get("textname", ""))

    def run(self, changes: Sequence[Sequence[Command]]) -> None:
        """Make changes, a bounded number at a time."""
        commands = [command for change in changes for command in change]
        for start in range(0, len(commands), BATCH):
            if start:
                time.sleep(REST_S)
            for answer in self._ask(commands[start : start + BATCH]):
                if answer.get("error") and not _is_harmless(answer["error"]):
                    log.warning("broker_command_refused", command=answer.get("command"), reason=answer["error"])

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        mark = secrets.token_hex(8)
        marked = [command | {"correlationData": mark} for command in commands]
        self._client.publish(CONTROL, orjson.dumps({"commands": marked}), qos=1)
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                raise Unavailable("the broker's plugin does not answer", code="broker_unavailable") from None
            responses: list[Any] = answer["responses"]
            if any(response.get("correlationData") == mark for response in responses):
                return responses


class _Wanted(NamedTuple):
    """What is to be set of a device: what the registry holds of its secret, and the topics it has claimed."""

    form: str
    claimed: list[str]

    @property
    def mark(self) -> str:
        """Name all of it, and the rights of all devices."""
        told = "\n".join((self.form, *WRITES, *READS, *self.claimed))
        return ROLE + hashlib.sha256(told.encode()).hexdigest()[:32]


def _set(name: str, secret: str, wanted: _Wanted, *, is_new: bool) -> list[Command]:
    role, digest = ROLE + name, wanted.mark
    rules = [_rule("publishClientSend", topic) for topic in topics_of(name, "publish", wanted.claimed)]
    rules += [_rule("subscribePattern", topic) for topic in topics_of(name, "subscribe", wanted.claimed)]
    if not is_new:
        return [
            {"command": "modifyRole", "rolename": role, "acls": rules},
            {"command": "modifyClient", "username": name, "password": secret, "textname": digest},
        ]
    client = {"username": name, "clientid": name, "password": secret, "textname": digest}
    return [
        {"command": "createRole", "rolename": role, "acls": rules},
        {"command": "createClient", **client, "roles": [{"rolename": role}]},
    ]


def _families(claims: Sequence[Claim], control: str, held: Callable[[str], str]) -> list[list[Command]]:
    """Set the roles by which the bridge hears what is claimed and the registry speaks there, where they are other ones.

    Setting a role cuts the connections of its clients, so it is not done without need.
    """
    hears = [_rule("subscribePattern", topic) for topic in heard(claims)]
    hears += [_rule("publishClientSend", topic) for topic in asked(claims)]
    speaks = [_rule("publishClientSend", topic) for topic in reached(claims)]
    return [
        _role(name, digest, rules, client)
        for name, rules, client in ((HEARS, hears, BRIDGE), (SPEAKS, speaks, control))
        if held(name) != (digest := hashlib.sha256(orjson.dumps(rules)).hexdigest()[:32]) and (rules or held(name))
    ]


def _role(name: str, digest: str, rules: list[Command], client: str) -> list[Command]:
    return [
        {"command": "createRole", "rolename": name},
        {"command": "modifyRole", "rolename": name, "textname": digest, "acls": rules},
        {"command": "addClientRole", "username": client, "rolename": name},
    ]


def _forget(name: str) -> list[Command]:
    return [{"command": "deleteClient", "username": name}, {"command": "deleteRole", "rolename": ROLE + name}]


def _rule(kind: str, topic: str) -> Command:
    return {"acltype": kind, "topic": topic, "allow": True, "priority": 0}


def _is_harmless(error: str) -> bool:
    """Tell whether a refusal says only that the work was done before, by a call that broke off."""
    return error in (
        "Role already exists", "Client not found", "Role not found", "Client is already in this role",
    )  # fmt: skip
