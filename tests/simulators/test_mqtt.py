"""The MQTT client against a real mosquitto, and against a broker that does what no good broker does."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
import pytest
from paho.mqtt import publish

from simulators import mqtt, packets
from simulators.control import Answers, ControlBook, DeviceControl
from simulators.dice import Dice
from simulators.mqtt import MqttClient, MqttSettings
from simulators.outbox import Login, Outgoing
from tests.simulators.fakes import DEADLINE_S, Books, Mosquitto, message, serving, until


@asynccontextmanager
async def connected(port: int, books: Books, login: Login | None = None, **settings: Any) -> AsyncIterator[MqttClient]:
    client = MqttClient(MqttSettings("127.0.0.1", port, **settings), login or Login("d1"), books, Dice("1"))
    tasks: list[asyncio.Task[None]] = []
    client.start(lambda work: tasks.append(asyncio.create_task(work)), lambda: None)
    try:
        yield client
    finally:
        client.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: client.is_done)


@contextmanager
def listening(port: int, topic: str) -> Iterator[list[paho.MQTTMessage]]:
    """Collect what arrives, with another client library."""
    heard: list[paho.MQTTMessage] = []
    subscribed = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = lambda *args: heard.append(args[2])
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe(topic, qos=1)
    assert subscribed.wait(DEADLINE_S)
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("version", [packets.V311, packets.V5])
@pytest.mark.parametrize("qos", [0, 1])
def test_messages_arrive_in_order(broker: Mosquitto, version: int, qos: int) -> None:
    books = Books()

    async def scene(heard: list[Any]) -> None:
        async with connected(broker.port, books, version=version, qos=qos, window=10) as client:
            for seq in range(300):
                client.offer(message(seq))
            await until(lambda: len(heard) == 300 and client.backlog == 0)

    with listening(broker.port, "devices/+/telemetry") as heard:
        asyncio.run(scene(heard))

    assert [each.payload for each in heard] == [message(seq).payload for seq in range(300)]
    assert books.acked_seqs == (list(range(300)) if qos else [])
    assert books.sent_seqs == list(range(300))
    assert not books.errors


def test_status_is_online_then_offline(broker: Mosquitto) -> None:
    async def scene(heard: list[Any]) -> None:
        async with connected(broker.port, Books()) as client:
            await until(lambda: client.is_connected)
            await until(lambda: len(heard) == 1)

    with listening(broker.port, "devices/d1/status") as heard:
        asyncio.run(scene(heard))
        asyncio.run(until(lambda: len(heard) == 2))

    assert [each.payload for each in heard] == [mqtt.ONLINE, mqtt.OFFLINE]


def test_cut_connection_lets_the_last_will_speak(broker: Mosquitto) -> None:
    async def scene(heard: list[Any]) -> None:
        async with connected(broker.port, Books()) as client:
            await until(lambda: client.is_connected)
            await until(lambda: len(heard) == 1)
            client.break_connection()
            await until(lambda: len(heard) >= 3)

    with listening(broker.port, "devices/d1/status") as heard:
        asyncio.run(scene(heard))

    assert [each.payload for each in heard][:3] == [mqtt.ONLINE, mqtt.OFFLINE, mqtt.ONLINE]


def test_killed_broker_costs_no_message(broker: Mosquitto) -> None:
    books = Books()

    async def scene() -> None:
        async with connected(broker.port, books, window=20) as client:
            for seq in range(5000):
                client.offer(message(seq))
            await until(lambda: len(books.acked_seqs) > 200)
            broker.stop(signal.SIGKILL)
            for seq in range(5000, 5100):
                client.offer(message(seq))
            await until(lambda: not client.is_connected)
            broker.start()
            await until(lambda: client.backlog == 0)

    asyncio.run(scene())

    assert sorted(books.acked_seqs) == list(range(5100))
    assert books.sent_seqs == list(range(5100))
    assert books.errors["reconnects"] == 1
    assert books.errors["resent"] <= 20


def test_one_that_is_connected_has_no_task_of_its_own(broker: Mosquitto) -> None:
    async def scene() -> int:
        async with connected(broker.port, Books()) as client:
            await until(lambda: client.is_connected)
            await until(lambda: len(asyncio.all_tasks()) == 1)
            client.break_connection()
            await until(lambda: not client.is_connected)
            coming_back = len(asyncio.all_tasks())
            await until(lambda: client.is_connected)
            return coming_back

    assert asyncio.run(scene()) == 2


class DeafBroker:
    """Accepts, hears the first messages and cuts the connection; acknowledges only from the second connection on."""

    def __init__(self, receive_maximum: int = 0) -> None:
        self.heard: list[list[packets.Packet]] = []
        self._receive_maximum = receive_maximum

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream, mine = packets.PacketReader(), []
        self.heard.append(mine)
        is_second = len(self.heard) > 1
        limit = b"\x03\x21" + self._receive_maximum.to_bytes(2, "big") if self._receive_maximum else b"\x00"
        body = b"\x00\x00" + (limit if self._receive_maximum else b"")
        writer.write(bytes((0x20, len(body))) + body)
        while data := await reader.read(4096):
            for packet in stream.feed(data):
                if packet.kind == packets.PUBLISH and packet.flags & 6:
                    mine.append(packet)
                    writer.write(b"\x40\x02" + self._id(packet) if is_second else b"")
            if not is_second and len(mine) == 3:
                break

    @staticmethod
    def _id(packet: packets.Packet) -> bytes:
        start = 2 + int.from_bytes(packet.body[:2], "big")
        return packet.body[start : start + 2]

    def ids(self, connection: int) -> list[int]:
        return [int.from_bytes(self._id(packet), "big") for packet in self.heard[connection]]


def test_unacknowledged_are_sent_again_as_duplicates_first() -> None:
    books, deaf = Books(), DeafBroker()

    async def scene() -> None:
        async with serving(deaf.serve) as port, connected(port, books, window=3) as client:
            for seq in range(5):
                client.offer(message(seq))
            await until(lambda: client.backlog == 0)

    asyncio.run(scene())

    assert deaf.ids(0) == [1, 2, 3]
    assert deaf.ids(1) == [1, 2, 3, 4, 5]
    assert [bool(packet.flags & 8) for packet in deaf.heard[1]] == [True, True, True, False, False]
    assert books.sent_seqs == books.acked_seqs == [0, 1, 2, 3, 4]
    assert books.errors == {"reconnects": 1, "resent": 3}


def test_power_loss_keeps_the_queue_and_forgets_the_rest() -> None:
    books, deaf = Books(), DeafBroker()

    async def scene() -> None:
        async with serving(deaf.serve) as port, connected(port, books, window=2) as client:
            for seq in range(4):
                client.offer(message(seq))
            await until(lambda: len(deaf.heard) == 1 and len(deaf.heard[0]) == 2)
            client.lose_power()
            await until(lambda: client.backlog == 0)

    asyncio.run(scene())

    assert not any(packet.flags & 8 for packet in deaf.heard[1]), "its new life knows no earlier delivery"
    assert [packet.body[-7:] for packet in deaf.heard[1]] == [message(seq).payload for seq in range(4)]
    assert books.sent_seqs == books.acked_seqs == [0, 1, 2, 3]
    assert books.errors["resent"] == 2


def test_messages_of_one_turn_are_one_write(broker: Mosquitto) -> None:
    books = Books()

    async def scene() -> int:
        async with connected(broker.port, books, window=50) as client:
            await until(lambda: client.is_connected)
            assert client._link is not None
            writes = _Counted(client._link)
            client._link = writes  # type: ignore[assignment]
            for seq in range(20):
                client.offer(message(seq))
            await until(lambda: client.backlog == 0)
            return writes.count

    assert asyncio.run(scene()) == 1
    assert books.acked_seqs == list(range(20))


class _Counted:
    """A link that counts what is written."""

    def __init__(self, link: Any) -> None:
        self._link, self.count = link, 0

    def write(self, data: bytes) -> None:
        self.count += 1
        self._link.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


def test_receive_maximum_of_the_broker_is_kept() -> None:
    books, deaf = Books(), DeafBroker(receive_maximum=2)

    async def scene() -> None:
        async with serving(deaf.serve) as port, connected(port, books, window=100, version=packets.V5) as client:
            await until(lambda: client.is_connected)
            for seq in range(50):
                client.offer(message(seq))
            await until(lambda: len(deaf.heard[0]) == 2)
            client.break_connection()
            await until(lambda: client.backlog == 0)

    asyncio.run(scene())

    assert len(deaf.heard[0]) == 2
    assert books.acked_seqs == list(range(50))


def test_silent_broker_is_left() -> None:
    books = Books()

    async def scene() -> None:
        first: list[asyncio.StreamWriter] = []

        async def freeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first.append(writer)
            writer.write(b"\x20\x02\x00\x00")
            await reader.read()

        async with serving(freeze) as port, connected(port, books, keepalive_s=1):
            await until(lambda: len(first) == 2)

    asyncio.run(scene())

    assert books.errors["reconnects"] == 1


def test_late_permission_is_waited_for(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("other:$7$101$Zm9v$Zm9v\n")
    passwords.chmod(0o600)
    broker = Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    broker.start()
    books = Books()

    async def scene() -> None:
        async with connected(broker.port, books, Login("d1", "secret")) as client:
            client.offer(message(1))
            await until(lambda: client.refusals > 0)
            broker.stop()
            passwords.write_text(_password_line("d1", "secret"))
            broker.start()
            await until(lambda: client.backlog == 0)

    try:
        asyncio.run(scene())
    finally:
        broker.stop()

    assert books.acked_seqs == [1]


def _password_line(name: str, password: str) -> str:
    """mosquitto's own format: $7$ iterations $ salt $ PBKDF2-SHA512."""
    import base64
    import hashlib

    salt = b"123456789012"
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"{name}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def test_tls_is_spoken_and_the_authority_is_checked(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    broker = Mosquitto(tmp_path, "allow_anonymous true", f"certfile {certificate}", f"keyfile {key}")
    broker.start()
    books, strangers = Books(), Books()

    async def scene() -> None:
        trusting, doubting = ssl.create_default_context(cafile=certificate), ssl.create_default_context()
        async with (
            connected(broker.port, books, tls=trusting) as client,
            connected(broker.port, strangers, Login("d2"), tls=doubting) as stranger,
        ):
            client.offer(message(1))
            stranger.offer(message(2))
            await until(lambda: client.backlog == 0 and strangers.errors["connect"] > 0)

    try:
        asyncio.run(scene())
    finally:
        broker.stop()

    assert books.acked_seqs == [1]
    assert not strangers.sent_seqs


def numbered(seq: int) -> Outgoing:
    return Outgoing(0, seq, seq, b"%d" % seq, boot_id="b")


def say(port: int, newest: int, *missing: tuple[int, int]) -> None:
    body = {"boot_id": "b", "first": 0, "seq": newest, "newest": newest, "missing": missing}
    payload = orjson.dumps(body | {"time": "2026-01-02T03:04:05Z"})
    publish.single("devices/d1/acks", payload, qos=1, retain=True, hostname="127.0.0.1", port=port)


@pytest.mark.parametrize("version", [packets.V311, packets.V5])
def test_reading_said_to_be_missing_is_published_again(broker: Mosquitto, version: int) -> None:
    books = Books()

    async def scene(heard: list[Any]) -> None:
        async with connected(broker.port, books, version=version, outbox=10) as client:
            for seq in range(5):
                client.offer(numbered(seq))
            await until(lambda: len(books.acked_seqs) == 5)
            await asyncio.to_thread(say, broker.port, 4, (1, 2))
            await until(lambda: len(heard) == 7 and client.backlog == 0)

    with listening(broker.port, "devices/+/telemetry") as heard:
        asyncio.run(scene(heard))

    assert [int(each.payload) for each in heard] == [0, 1, 2, 3, 4, 1, 2]
    assert books.errors == {"resent_missing": 2}


def test_readings_that_a_killed_broker_forgot_go_out_again(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "HOLD_S", 0.2)
    books = Books()

    async def scene() -> list[int]:
        async with connected(broker.port, books, outbox=10) as client:
            for seq in range(5):
                client.offer(numbered(seq))
            await until(lambda: len(books.acked_seqs) == 5)
            broker.stop(signal.SIGKILL)
            await until(lambda: client.doubtful == 5)
            broker.start()
            await asyncio.to_thread(say, broker.port, 2)
            with listening(broker.port, "devices/+/telemetry") as heard:
                await until(lambda: books.errors["resent_missing"] >= 2 and not client.backlog)
                await until(lambda: len(heard) >= 2)
                await asyncio.to_thread(say, broker.port, 4)
                await until(lambda: not client.doubtful)
            return [int(each.payload) for each in heard]

    assert set(asyncio.run(scene())) >= {3, 4}
    assert books.errors["resent_missing"] >= 2


def test_command_is_answered_at_qos_1(broker: Mosquitto) -> None:
    book = ControlBook()

    async def scene(heard: list[Any]) -> None:
        async with connected(broker.port, Books()) as client:
            client.control = DeviceControl("d1", Answers(), "1.0", Dice("1"), book)
            await until(lambda: book.counts["twin.reported"])
            content = orjson.dumps({"id": "c1", "deadline": "2030-01-01T00:00:00Z"})
            publish.single("devices/d1/commands/c1", content, qos=1, port=broker.port, hostname="127.0.0.1")
            await until(lambda: book.counts["commands.answered"] and len(heard) == 2)

    with listening(broker.port, "devices/+/commands/+/reply") as heard:
        asyncio.run(scene(heard))

    assert [orjson.loads(each.payload)["state"] for each in heard] == ["accepted", "succeeded"]
    assert book.answers == {"c1": "succeeded"}
