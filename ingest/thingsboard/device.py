"""What a ThingsBoard device says over MQTT, and is told: telemetry, attributes, RPC both ways.

Telemetry goes its own way; what needs the registry is done one by one, in order, beside it: while the registry is away
it waits, un-acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import orjson

from chassis import ending, logs
from ingest.framing import Ending
from ingest.gate import Known
from ingest.thingsboard import packets
from ingest.thingsboard.config import DoorLimits
from ingest.thingsboard.downlink import Downlink, sent
from ingest.thingsboard.metrics import FAULTS, MESSAGES, REFUSED
from ingest.thingsboard.packets import Publish
from ingest.thingsboard.registry import Registry
from ingest.thingsboard.session import Session
from ingest.thingsboard.uplink import Uplink
from wire.errors import BadRequest, HeadwaterError, PeerUnavailable
from wire.thingsboard import MAX_INFLIGHT, answer_to

log = logs.get(__name__)
ME = "v1/devices/me/"
ATTRIBUTES, RPC_REQUEST = ME + "attributes", ME + "rpc/request/"
MAX_ASKED = 1_000  # commands whose answer is awaited
_REASONS = {"unsupported": packets.UNSPECIFIED, "bad_topic": packets.BAD_TOPIC}

Deed = Callable[[], Awaitable[None]]
Take = Callable[[Publish], Awaitable[None]]


class Family(Protocol):
    """Finds the children of a gateway; see `ingest.thingsboard.family`."""

    def find(self, gateway: str, name: str) -> str: ...
    def note(self, device: str, *, is_online: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What a connection's messages are handed to."""

    uplink: Uplink
    downlink: Downlink
    registry: Registry
    family: Family
    limits: DoorLimits
    announced: Counter[str] = field(default_factory=Counter)  # children -> connections of gateways that announced them


class Device:
    """The speaker of a device that has logged in; used from the event loop only. `work` ends when it is cancelled."""

    def __init__(self, session: Session, known: Known, token: str, services: Services) -> None:
        self.known = known
        self.token = token
        self.session = session
        self.services = services
        self._room = asyncio.Semaphore(MAX_INFLIGHT)
        self._deeds: asyncio.Queue[tuple[Publish, Deed]] = asyncio.Queue(services.limits.waiting)
        self._asked: dict[int, Mapping[str, Any]] = {}  # commands by the number of their RPC
        self._last_number = 0
        telemetry, attributes = self._take_telemetry, self._take_attributes
        self.topics: dict[str, Take] = {
            ME + "telemetry": telemetry, "v2/t": telemetry, "v2/t/j": telemetry,
            ATTRIBUTES: attributes, "v2/a": attributes, "v2/a/j": attributes,
            ME + "claim": self.refuse_claim,
        }  # fmt: skip
        self.numbered: dict[str, Callable[[Publish, str], Awaitable[None]]] = {
            ATTRIBUTES + "/request": self._take_request,
            ME + "rpc/request": self._take_question,
            ME + "rpc/response": self._take_answer,
        }

    # -- what it says ----------------------------------------------------------------------------------------------

    async def take(self, message: Publish) -> None:
        """See Speaker; a topic that nobody knows goes the way of telemetry: to the quarantine."""
        take = self.topics.get(message.topic)
        if take is not None:
            await take(message)
            return
        before, _, last = message.topic.rpartition("/")
        take_numbered = self.numbered.get(before)
        if take_numbered is None:
            await self._send_up(message, "unknown", protocol="")
        else:
            await take_numbered(message, last)

    async def work(self) -> None:
        """Do what is waiting, one by one."""
        while True:
            message, deed = await self._deeds.get()
            try:
                await self._do(message, deed)
            except Exception as error:  # those behind it would wait for ever
                ending.end_if_short(error)
                FAULTS.inc()
                log.fault("message_fault")
                self.session.link.abort("fault")

    async def later(self, message: Publish, kind: str, deed: Deed) -> None:
        """Have something done that needs the registry, and acknowledge the message then."""
        MESSAGES.labels(kind).inc()
        await self._deeds.put((message, deed))

    async def _do(self, message: Publish, deed: Deed) -> None:
        while self.session.link.is_open:
            try:
                await deed()
            except PeerUnavailable:
                await asyncio.sleep(self.services.limits.retry_s)
            except HeadwaterError as error:
                self.refuse(message, error.code)
                return
            else:
                self.session.acknowledge(message)
                return

    def refuse(self, message: Publish, code: str) -> None:
        """Acknowledge a message that is not taken; MQTT 5 tells so."""
        REFUSED.labels(code).inc()
        self.session.acknowledge(message, _REASONS.get(code, packets.BAD_PAYLOAD))

    async def refuse_claim(self, message: Publish) -> None:
        """Refuse to have a device claimed: it belongs to the tenant that it was registered in."""
        MESSAGES.labels("claim").inc()
        self.refuse(message, "unsupported")

    async def _take_telemetry(self, message: Publish) -> None:
        await self._send_up(message, "telemetry")

    async def _send_up(self, message: Publish, kind: str, *, protocol: str | None = None) -> None:
        MESSAGES.labels(kind).inc()
        await self._room.acquire()
        uplink = self.services.uplink
        await uplink.put(uplink.make(self.known.id, message, protocol), partial(self._settle, message))

    def _settle(self, message: Publish, end: Ending | None) -> None:
        self._room.release()
        if end is not None and end.end == "refused":
            self.refuse(message, end.code)
        else:
            self.session.acknowledge(message)

    async def _take_attributes(self, message: Publish) -> None:
        await self.later(message, "attributes", partial(self.report, "", message.payload))

    async def report(self, child: str, patch: bytes) -> None:
        """Keep what the device, or a child of it, says of itself."""
        await asyncio.to_thread(self.services.registry.report, self.token, child, patch)

    async def _take_request(self, message: Publish, number: str) -> None:
        async def answer() -> None:
            asked = read_object(message.payload)
            wanted = {"client": keys_of(asked.get("clientKeys")), "shared": keys_of(asked.get("sharedKeys"))}
            found = pick(await self.twin(""), wanted)
            self.session.tell("attributes", f"{ATTRIBUTES}/response/{number}", found)

        await self.later(message, "attributes_request", answer)

    async def twin(self, child: str) -> dict[str, Any]:
        """Give the twin of the device, or of a child of it."""
        return await asyncio.to_thread(self.services.registry.twin, self.token, child)

    async def _take_question(self, message: Publish, number: str) -> None:
        MESSAGES.labels("rpc_request").inc()
        try:
            answer = answer_to(message.payload)
        except BadRequest as error:
            REFUSED.labels(error.code).inc()
            answer = {"error": error.detail}
        self.session.tell("rpc_response", f"{ME}rpc/response/{number}", answer)
        self.session.acknowledge(message)

    async def _take_answer(self, message: Publish, number: str) -> None:
        await self.later(message, "rpc_response", partial(self.answer, number, message.payload))

    async def answer(self, number: str, payload: bytes) -> None:
        """Take the answer to a command: `{"error": text}` says that it failed, all else is its result."""
        place = int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else 0  # noqa: PLR2004
        command = self._asked.get(place)
        if command is None:
            raise BadRequest(f"no RPC {number[:20]} of this connection waits for an answer", code="command_not_found")
        report = {"id": command["id"], "device": command["device"]} | _outcome(payload)
        # That it was sent may not be told yet: both together, in their order.
        await asyncio.to_thread(self.services.registry.tell, sent(command), report)
        self._asked.pop(place, None)

    # -- what it is told -------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """See Speaker."""
        if self.session.hears(RPC_REQUEST + "1"):
            self.services.downlink.want_commands(self.known.id, self)
        if self.session.hears(ATTRIBUTES):
            self.services.downlink.want_wishes(self.known.id, self)

    def command(self, name: str, command: Mapping[str, Any], heard: Callable[[], None]) -> bool:
        """See Listener. Its number is the connection's: many devices read it into 32 bits."""
        self._last_number += 1
        number = self._last_number
        if len(self._asked) >= MAX_ASKED:
            self._asked.pop(next(iter(self._asked)))
        self._asked[number] = command
        asked = {"method": command["name"], "params": command["params"]}
        if name:
            return self.session.tell("rpc", "v1/gateway/rpc", {"device": name, "data": {"id": number} | asked}, heard)
        return self.session.tell("rpc", f"{RPC_REQUEST}{number}", asked, heard)

    def wish(self, name: str, news: Mapping[str, Any]) -> bool:
        """See Listener."""
        if name:
            return self.session.tell("attributes", "v1/gateway/attributes", {"device": name, "data": news})
        return self.session.tell("attributes", ATTRIBUTES, news)

    def leave(self) -> None:
        """Forget all that the connection listened to."""
        self.services.downlink.leave(self.known.id, self)


def read_object(payload: bytes) -> dict[str, Any]:
    """Read a JSON object; nothing at all is an empty one. Raises BadRequest."""
    found = _read(payload or b"{}")
    if not isinstance(found, dict):
        raise BadRequest("a JSON object is wanted", code="bad_structure")
    return found


def _read(payload: bytes) -> Any:
    """Read JSON that is passed on. Raises BadRequest: it is none, or could not be written again."""
    try:
        found = orjson.loads(payload)
        orjson.dumps(found)  # of what can be read not all is as shallow as can be written
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"not JSON: {error}", code="bad_syntax") from None
    except TypeError:
        raise BadRequest("nested too deeply", code="too_deep") from None
    return found


def keys_of(given: Any) -> list[str] | None:
    """Give the keys that are asked for, as a text with commas or as a list; None: not asked for."""
    if given is None:
        return None
    keys = given.split(",") if isinstance(given, str) else given
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise BadRequest("keys are a text with commas, or a list", code="bad_structure")
    return [key for key in keys if key]


def pick(twin: Mapping[str, Any], wanted: Mapping[str, list[str] | None]) -> dict[str, dict[str, Any]]:
    """Give of a twin the client and shared attributes that are asked for, or all when none are; no empty parts."""
    held = {"client": twin["reported"], "shared": twin["desired"]}
    if not any(wanted.values()):
        return {part: values for part, values in held.items() if values}
    chosen = {part: {key: held[part][key] for key in wanted[part] or () if key in held[part]} for part in held}
    return {part: values for part, values in chosen.items() if values}


def _outcome(payload: bytes) -> dict[str, Any]:
    said = _read(payload or b"null")
    if isinstance(said, dict) and said.keys() == {"error"}:
        return {"error": said["error"]} if isinstance(said["error"], str) else {"state": "failed", "result": said}
    return {"state": "succeeded", "result": said}
