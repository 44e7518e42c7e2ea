"""A single connection: who is told of its end, and what keeps it alive."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from simulators import link as link_module
from simulators import packets
from simulators.link import ConnectRefused, Link, Pulse
from tests.simulators.fakes import until

ACCEPTED, REFUSED = b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"


class Transport:
    """Notes what is written, and that it was aborted."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.is_aborted = True


class Client:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.losses = 0

    def on_lost(self) -> None:
        self.losses += 1

    def pump(self) -> None: ...
    def on_puback(self, packet_id: int, reason: int) -> None: ...
    def on_packet(self, packet: packets.Packet) -> None: ...


def connect(client: Client, pulse: Pulse | None = None) -> tuple[Link, Transport]:
    link, transport = Link(client, packets.V311, pulse or Pulse()), Transport()
    made: Any = transport
    link.connection_made(made)
    return link, transport


async def answered(link: Link, answer: bytes) -> packets.Connack:
    accepting = asyncio.create_task(link.accepted())
    await asyncio.sleep(0)
    link.data_received(answer)
    return await accepting


def test_end_of_an_accepted_connection_is_told() -> None:
    client = Client()

    async def scene() -> None:
        link, _ = connect(client)
        await answered(link, ACCEPTED)
        link.connection_lost(None)

    asyncio.run(scene())

    assert client.losses == 1


def test_end_of_a_refused_connection_is_the_answer_alone() -> None:
    client = Client()

    async def scene() -> None:
        link, _ = connect(client)
        with pytest.raises(ConnectRefused):
            await answered(link, REFUSED)
        link.connection_lost(None)

    asyncio.run(scene())

    assert client.losses == 0


@pytest.mark.parametrize("heard", [b"", ACCEPTED])
def test_end_before_the_answer_was_read_is_an_error(heard: bytes) -> None:
    client = Client()

    async def scene() -> None:
        link, _ = connect(client)
        accepting = asyncio.create_task(link.accepted())
        await asyncio.sleep(0)
        if heard:
            link.data_received(heard)
        link.connection_lost(None)
        with pytest.raises(ConnectionError, match="closed"):
            await accepting

    asyncio.run(scene())

    assert client.losses == 0


def test_one_timer_has_all_connections_ping_until_the_last_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_BEAT_S", 0.001)
    pulse = Pulse()

    async def scene() -> list[Transport]:
        links, transports = zip(*(connect(Client(), pulse) for _ in range(3)), strict=True)
        for link in links:
            await answered(link, ACCEPTED)
            link.keep_alive(0.0 if link is links[2] else 1000.0)
        await until(lambda: all(each.written for each in transports[:2]))
        for link in links:
            link.connection_lost(None)
        await until(lambda: pulse._timer is None)
        return list(transports)

    transports = asyncio.run(scene())

    assert [each.written for each in transports] == [[packets.PINGREQ_BYTES], [packets.PINGREQ_BYTES], []]


def test_ping_each_half_of_the_time_and_silence_of_one_and_a_half_ends_it() -> None:
    async def scene() -> tuple[list[int], Transport]:
        link, transport = connect(Client())
        await answered(link, ACCEPTED)
        link.keep_alive(10.0)
        now, counts = time.monotonic(), []
        for after_s in (0, 4, 6, 9, 12, 14, 18):
            link.beat(now + after_s)
            counts.append(len(transport.written))
        return counts, transport

    counts, transport = asyncio.run(scene())

    assert counts == [1, 1, 2, 2, 3, 3, 3]
    assert transport.is_aborted
