"""Standing connections at brokers that ask by hooks: cut by name, again until it is done. RabbitMQ for real: its own file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from devices.broker import management
from devices.broker.access import every
from devices.broker.management import Management
from devices.rows import BrokerCredential
from wire.claims import Claim


class Emqx:
    """Answers as EMQX 5 does: 204, or 404 for a client that is not connected."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.status = 204
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_DELETE(self) -> None:
                outer.asked.append((self.path, self.headers["Authorization"]))
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not into the output."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@pytest.fixture
def emqx() -> Iterator[Emqx]:
    made = Emqx()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def cutter(emqx: Emqx, monkeypatch: pytest.MonkeyPatch) -> Management:
    monkeypatch.setattr(management, "RETRY_S", 0.0)
    made = Management(management.read(f"emqx+http://127.0.0.1:{emqx.server.server_port}/", "key:secret"))
    made.replace([("d1", "c1 c2"), ("d2", "c3")])
    return made


def test_device_that_is_gone_and_one_that_lost_a_credential_are_cut(emqx, cutter) -> None:
    cutter.replace([("d1", "c1"), ("d3", "c4")])

    assert sorted(emqx.paths) == ["/api/v5/clients/d1", "/api/v5/clients/d2"]
    assert emqx.asked[0][1] == "Basic a2V5OnNlY3JldA=="


def test_start_and_new_credentials_cut_nobody(emqx, cutter) -> None:
    cutter.replace([("d1", "c1 c2 c9"), ("d2", "c3")])

    assert emqx.asked == []


def test_each_is_cut_once_more_a_little_later(emqx, cutter, monkeypatch) -> None:
    cutter.replace([("d1", "c1 c2")])
    cutter.settle()
    assert emqx.paths == ["/api/v5/clients/d2"]

    later_s = management.time.monotonic() + management.AGAIN_S
    monkeypatch.setattr(management.time, "monotonic", lambda: later_s)
    cutter.settle()
    cutter.settle()

    assert emqx.paths == ["/api/v5/clients/d2"] * 2


@pytest.mark.parametrize(("status", "calls"), [(404, 1), (204, 1), (401, 2), (500, 2)])
def test_refused_call_is_made_again(emqx, cutter, status, calls) -> None:
    emqx.status = status
    cutter.replace([("d1", "c1 c2")])

    cutter.settle()

    assert emqx.paths == ["/api/v5/clients/d2"] * calls


def test_broker_that_is_away_stops_nothing(emqx, cutter) -> None:
    emqx.server.shutdown()
    emqx.server.server_close()

    cutter.replace([])
    cutter.settle()


def test_every_credential_counts() -> None:
    valid = [BrokerCredential("a", "c1", "h", True), BrokerCredential("a", "c2", "h", False)]

    assert every([*valid, BrokerCredential("b", "c3", "h", True)]) == [("a", "c1 c2"), ("b", "c3")]


@pytest.mark.parametrize("text", ["", "http://h:1", "hivemq+http://h:1", "emqx+ftp://h", "emqx+http://"])
def test_odd_addresses_are_refused(text) -> None:
    with pytest.raises(ValueError, match="emqx"):
        management.read(text, "")


def test_device_that_claims_other_topics_is_cut_and_the_start_cuts_nobody(emqx, cutter) -> None:
    claims = [Claim("tele/a/#", "tasmota", "d1"), Claim("tele/b/#", "tasmota", "d2")]
    cutter.grant(claims)
    cutter.settle()
    assert emqx.paths == []

    cutter.grant([claims[1], Claim("tele/c/#", "tasmota", "d3")])
    cutter.settle()

    assert emqx.paths == ["/api/v5/clients/d1", "/api/v5/clients/d3"]
