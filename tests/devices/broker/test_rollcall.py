"""Who is connected at a broker that asks by HTTP hooks, by its documented lists; RabbitMQ for real: test_rabbitmq.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from devices.broker import management
from devices.broker.rollcall import RollCall
from wire.errors import HeadwaterError

CLIENT = {"node": "emqx@127.0.0.1", "proto_name": "MQTT", "connected": True, "is_bridge": False}


class Lists:
    """Answers as EMQX 5.8 and RabbitMQ 3.10 are documented to, two clients a page."""

    def __init__(self) -> None:
        self.clients: list[str] = []
        self.asked: list[str] = []
        self.cut: list[str] = []
        self.answer: Any = None
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self._send(outer.status, outer.page(urlsplit(self.path)) if outer.answer is None else outer.answer)

            def do_DELETE(self) -> None:
                outer.cut.append(self.path)
                self._send(204, None)

            def _send(self, status: int, answer: Any) -> None:
                body = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not into the output."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def page(self, asked: Any) -> Any:
        number = int(parse_qs(asked.query)["page"][0])
        part, is_last = self.clients[2 * number - 2 : 2 * number], 2 * number >= len(self.clients)
        if asked.path == "/api/connections":
            items = [{"user": name} if name else {} for name in part]
            pages = max(1, -(-len(self.clients) // 2))
            return {"items": items, "page": number, "page_count": pages, "page_size": 500, "item_count": len(part)}
        meta = {"page": number, "limit": 1000, "count": len(self.clients), "hasnext": not is_last}
        return {"data": [CLIENT | {"clientid": name, "username": name} for name in part], "meta": meta}


class Presence:
    """What presence knows, and what it was told."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.told: list[tuple[str, str]] = []
        self.too_many: list[str] = []

    def connected(self) -> frozenset[str]:
        return frozenset(self.known)

    def surplus(self) -> list[str]:
        return self.too_many

    def tell(self, news: Any) -> None:
        self.told = [(piece.kind, piece.device) for piece in news]
        for kind, device in self.told:
            (self.known.add if kind == "connected" else self.known.discard)(device)


@pytest.fixture
def lists() -> Iterator[Lists]:
    made = Lists()
    yield made
    made.server.shutdown()
    made.server.server_close()


def call(lists: Lists, presence: Presence, kind: str = "emqx") -> RollCall:
    api = management.read(f"{kind}+http://127.0.0.1:{lists.server.server_port}", "key:secret")
    return RollCall(api, presence, presence.tell, presence)


@pytest.mark.parametrize("kind", ["emqx", "rabbitmq"])
def test_who_is_on_any_page_is_connected_and_services_are_none(lists: Lists, kind: str) -> None:
    lists.clients, presence = ["d1", "_bridge", "d2", "", "d3"], Presence()

    call(lists, presence, kind).look()

    assert presence.told == [("connected", name) for name in ("d1", "d2", "d3")]
    assert [path.rpartition("=")[2] for path in lists.asked] == ["1", "2", "3"]


def test_who_is_missed_once_may_have_been_on_the_other_page(lists: Lists) -> None:
    lists.clients, presence = ["d1", "d2"], Presence()
    roll_call = call(lists, presence)
    roll_call.look()

    told = []
    for clients in (["d1"], ["d1", "d2"], ["d1"], ["d1"], ["d1"]):
        lists.clients = clients
        roll_call.look()
        told.append(presence.told)

    assert told == [[], [], [], [("disconnected", "d2")], []]


def test_who_is_too_many_is_cut_off(lists: Lists) -> None:
    lists.clients, presence = ["d1", "d2", "d3"], Presence()
    presence.too_many = ["d3"]

    call(lists, presence).look()

    assert lists.cut == ["/api/v5/clients/d3"]


@pytest.mark.parametrize("answer", [[], {}, {"data": [{}], "meta": {"hasnext": False}}, {"data": 1, "meta": {}}])
def test_an_answer_that_is_none_changes_nothing(lists: Lists, answer: Any) -> None:
    lists.answer, presence = answer, Presence()
    presence.known = {"d1"}

    with pytest.raises((HeadwaterError, ValueError, LookupError, TypeError)):
        call(lists, presence).look()

    assert presence.known == {"d1"}


def test_an_api_that_refuses_changes_nothing(lists: Lists) -> None:
    lists.status, presence = 401, Presence()
    presence.known = {"d1"}
    roll_call = call(lists, presence)

    for _ in range(2):
        with pytest.raises(HeadwaterError, match="401"):
            roll_call.look()

    assert presence.known == {"d1"}


def test_a_broker_that_is_away_changes_nothing(lists: Lists) -> None:
    presence = Presence()
    presence.known = {"d1"}
    roll_call, stopping = call(lists, presence), threading.Event()
    lists.server.shutdown()
    lists.server.server_close()

    with pytest.raises(urllib3.exceptions.HTTPError):
        roll_call.look()
    thread = threading.Thread(target=roll_call.run, args=(stopping,))
    thread.start()
    stopping.set()
    thread.join(10)

    assert not thread.is_alive()
    assert presence.known == {"d1"}
