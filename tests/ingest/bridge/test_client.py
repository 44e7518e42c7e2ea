"""The client rests on three private names of paho; these tests fail when a new paho changes them."""

from __future__ import annotations

import socket
import ssl
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from paho.mqtt import client as paho

from ingest.bridge.client import READERS
from ingest.framing import Delivery
from tests.ingest.bridge.support import make_certificate

CONNACK = b"\x20\x02\x01\x00"


class Server:
    """The broker's end of one connection, by hand."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connection: socket.socket | None = None

    def accept(self) -> bytes:
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(5)
        return self.connection.recv(4096)

    def accept_tls(self, folder: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        plain, _ = self.listener.accept()
        self.connection = context.wrap_socket(plain, server_side=True)

    def close(self) -> None:
        self.listener.close()
        if self.connection is not None:
            self.connection.close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def received() -> list[Delivery]:
    return []


@pytest.fixture(params=["batch", "paho"])
def client(server, received, request):
    client = READERS[request.param]("_bridge", received.extend, version=4)
    client.aim("127.0.0.1", server.listener.getsockname()[1], 30)
    client.renew({})
    yield client
    client.abandon()


@pytest.mark.parametrize("name", ["_sock_recv", "_sock_send", "_sock_close", "_packet_queue"])
def test_paho_still_has_the_names(name):
    assert callable(getattr(paho.Client, name))


def test_connects_with_a_durable_session_of_a_fixed_name(client, server):
    packet = server.accept()

    assert packet[2:9] == b"\x00\x04MQTT\x04"
    assert packet[9] == 0, "no clean session, no will, no password"
    assert packet.endswith(b"\x00\x07_bridge")


def test_connack_and_messages_in_one_buffer_are_seen_in_that_order(client, server, received):
    seen: list[str] = []
    client.on_connect = lambda *_: seen.append(f"connected with {len(received)}")
    server.accept()

    server.connection.sendall(CONNACK + b"\x32\x08\x00\x01a\x00\x05{}!" * 3)
    while len(received) < 3:
        client.loop_read()

    assert seen == ["connected with 0"]
    assert [(each.topic, each.mid, each.payload) for each in received] == [("a", 5, b"{}!")] * 3


def test_one_read_takes_few_large_messages(client, server, received):
    """Between two reads the session looks whether its window is full."""
    message = b"\x32\xc5\xb8\x02\x00\x01a\x00\x05" + bytes(40_000)
    server.accept()
    server.connection.sendall(CONNACK + message * 6)

    at_once = []
    while len(received) < 6:
        before = len(received)
        client.loop_read()
        at_once.append(len(received) - before)

    assert max(at_once) <= 2


def test_acks_go_out_in_one_write_and_in_order(client, server):
    server.accept()
    server.connection.sendall(CONNACK)
    while not client.is_connected():
        client.loop_read()

    client.acknowledge([1, 258, 65_535])

    assert server.connection.recv(100) == b"\x40\x02\x00\x01\x40\x02\x01\x02\x40\x02\xff\xff"


def test_nothing_is_acknowledged_by_itself(client, server, received):
    server.accept()
    server.connection.sendall(CONNACK + b"\x32\x08\x00\x01a\x00\x05{}!")
    while not received:
        client.loop_read()
    client.ping()

    assert server.connection.recv(100) == b"\xc0\x00"


def test_end_of_the_stream_closes_the_connection(client, server):
    server.accept()
    server.connection.close()

    while client.socket() is not None:
        client.loop_read()


def test_message_cut_off_by_the_end_is_not_handed_on(client, server, received):
    server.accept()
    server.connection.sendall(CONNACK + b"\x32\x08\x00\x01a\x00")
    server.connection.close()

    while client.socket() is not None:
        client.loop_read()

    assert received == []


def test_messages_of_a_broker_that_died_are_read_although_writing_fails(client, server, received):
    server.accept()
    server.connection.sendall(CONNACK)
    while not client.is_connected():
        client.loop_read()
    server.connection.sendall(b"\x32\x08\x00\x01a\x00\x05{}!" * 3)
    server.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets, as a kill may
    server.connection.close()

    client.acknowledge([1])
    client.acknowledge([2])
    while client.socket() is not None:
        client.loop_read()

    assert len(received) == 3


def test_one_read_takes_many_records_of_tls(server, tmp_path):
    cert, _ = make_certificate(tmp_path)
    reads: list[list[Delivery]] = []
    client = READERS["batch"]("_bridge", reads.append, version=4)
    client.tls_set(str(cert))
    client.aim("127.0.0.1", server.listener.getsockname()[1], 30)
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(server.accept_tls, tmp_path)
        client.renew({})
        accepting.result()

    for _ in range(100):
        server.connection.sendall(b"\x32\x08\x00\x01a\x00\x05{}!")  # as mosquitto does: a record for each
    while sum(map(len, reads)) < 100:
        client.loop_read()

    client.abandon()
    assert len(reads) < 50
