"""What a ThingsBoard gateway says over MQTT for the devices behind it, whom it calls by names of its own."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import orjson

from ingest.gate import Known
from ingest.thingsboard.device import Device, Services, keys_of, pick, read_object
from ingest.thingsboard.packets import Publish
from ingest.thingsboard.session import Session
from wire.errors import BadRequest

GATEWAY = "v1/gateway/"
RPC, ATTRIBUTES = GATEWAY + "rpc", GATEWAY + "attributes"


class Gateway(Device):
    """The speaker of a gateway: a device that also speaks for others. What concerns them names them."""

    def __init__(self, session: Session, known: Known, token: str, services: Services) -> None:
        super().__init__(session, known, token, services)
        self._children: dict[str, str] = {}  # name -> id, of those that it has announced
        self.topics |= {
            GATEWAY + "telemetry": self._take_telemetry,
            GATEWAY + "connect": self._take_coming,
            GATEWAY + "disconnect": self._take_going,
            GATEWAY + "claim": self.refuse_claim,
            ATTRIBUTES: self._take_their_attributes,
            ATTRIBUTES + "/request": self._take_their_request,
            RPC: self._take_their_answer,
        }

    def listen(self) -> None:
        """See Speaker."""
        super().listen()
        for name, child in self._children.items():
            self._listen_for(name, child)

    def leave(self) -> None:
        """See Device; with the gateway its children are gone."""
        super().leave()
        for child in self._children.values():
            self._forget(child)

    def _listen_for(self, name: str, child: str) -> None:
        if self.session.hears(RPC):
            self.services.downlink.want_commands(child, self, name)
        if self.session.hears(ATTRIBUTES):
            self.services.downlink.want_wishes(child, self, name)

    def _forget(self, child: str) -> None:
        self.services.downlink.leave(child, self)
        announced = self.services.announced
        announced[child] -= 1
        if not announced[child]:  # else another connection of the gateway has announced it, too
            del announced[child]
            self.services.family.note(child, is_online=False)

    async def _find(self, name: Any) -> str:
        if not isinstance(name, str) or not name:
            raise BadRequest("`device` is a name", code="bad_structure")
        if name not in self._children:
            return await asyncio.to_thread(self.services.family.find, self.known.id, name)
        return self._children[name]

    async def _take_coming(self, message: Publish) -> None:
        async def announce() -> None:
            name = read_object(message.payload).get("device")
            child = await self._find(name)
            if name not in self._children and len(self._children) >= self.services.limits.children:
                raise BadRequest(f"{self.services.limits.children} devices are connected", code="too_many_children")
            if name not in self._children:
                self._children[str(name)] = child
                self.services.announced[child] += 1
            self._listen_for(str(name), child)
            self.services.family.note(child, is_online=True)

        await self.later(message, "connect", announce)

    async def _take_going(self, message: Publish) -> None:
        async def forget() -> None:
            child = self._children.pop(str(read_object(message.payload).get("device")), "")
            if child:
                self._forget(child)

        await self.later(message, "disconnect", forget)

    async def _take_their_attributes(self, message: Publish) -> None:
        async def report_all() -> None:
            for name, values in read_object(message.payload).items():
                await self.report(await self._find(name), orjson.dumps(values))

        await self.later(message, "attributes", report_all)

    async def _take_their_request(self, message: Publish) -> None:
        async def answer() -> None:
            asked = read_object(message.payload)
            twin = await self.twin(await self._find(asked.get("device")))
            told = {"id": asked.get("id"), "device": asked["device"]} | _chosen(twin, asked)
            self.session.tell("attributes", ATTRIBUTES + "/response", told)

        await self.later(message, "attributes_request", answer)

    async def _take_their_answer(self, message: Publish) -> None:
        async def answer() -> None:
            said = read_object(message.payload)
            await self.answer(str(said.get("id")), orjson.dumps(said.get("data")))

        await self.later(message, "rpc_response", partial(answer))


def _chosen(twin: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Give what a gateway asks for: `{"client": bool, "key"|"keys"}`, or `{"client": [..], "shared": [..]}`."""
    if "key" not in asked and "keys" not in asked:
        return pick(twin, {"client": keys_of(asked.get("client")), "shared": keys_of(asked.get("shared"))})
    held = twin["reported" if asked.get("client") else "desired"]
    if "keys" not in asked:
        return {"value": held.get(asked["key"])} if isinstance(asked["key"], str) else {}
    return {"values": {key: held[key] for key in keys_of(asked["keys"]) or () if key in held}}
