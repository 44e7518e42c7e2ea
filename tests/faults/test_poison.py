"""F12: malformed input by the thousand over HTTP, MQTT and websocket: no crash, no 5xx, no row.

Inputs are mutations of the valid cases, kept only when an independent reader (json of the standard library) finds no
JSON object or array in them, as a whole or in a line. HTTP answers 4xx to each of them; over MQTT they end in quarantine.
HEADWATER_TEST_LONG=1 sends 100,000.
"""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.checker.api import Door
from tests.faults.rig import Site
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
EACH = 50_000 if os.environ.get("HEADWATER_TEST_LONG") else 1_500
SENDERS = 4
CASES = sorted((Path(__file__).parent.parent / "cases").glob("*/*/input.*"))
BITES = (
    b"\x00",
    b"\xff\xfe",
    b"{",
    b"}",
    b"]",
    b'"',
    b"\\",
    b",",
    b":",
    b"-",
    b"1e999",
    b"NaN",
    b"\xed\xa0\x80",
    b"null",
)
TYPES = ("application/json", "application/x-ndjson", "application/json; charset=utf-16", "text/plain", "")


def mutate(chance: random.Random, content: bytes, other: bytes) -> bytes:
    place = chance.randrange(len(content) + 1)
    kind = chance.randrange(5)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + chance.choice(BITES) + content[place:]
    if kind == 2:
        return content[:place] + other[chance.randrange(len(other) + 1) :]
    if kind == 3:
        return content[:place] + chance.randbytes(chance.randrange(1, 40)) + content[place + 1 :]
    return content[:place] + bytes([content[place - 1] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def is_json(content: bytes) -> bool:
    """Tell whether a strict reader takes an object or array from it or from one of its lines.

    NUL bytes at the end are no damage: devices that send a C string with its end are meant to be understood.
    """
    for text in (content, *content.splitlines()):
        with suppress(ValueError, RecursionError):
            if isinstance(json.loads(text.strip(b"\0 \t\r\n")), dict | list):
                return True
    return False


def malformed(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    contents = [content for path in CASES if 0 < len(content := path.read_bytes()) < 4_096]
    while True:
        content = mutate(chance, chance.choice(contents), chance.choice(contents))
        if content and not is_json(content):
            yield content


def post_all(site: Site, bearer: str, seed: int, answers: Counter[int]) -> None:
    door, inputs, chance = Door(site.installation.url, bearer), malformed(seed), random.Random(seed)
    for _ in range(EACH // SENDERS):
        headers = {"Content_Encoding": "gzip"} if chance.random() < 0.05 else {}
        answers[door.call("POST", "/v1/telemetry", next(inputs), Content_Type=chance.choice(TYPES), **headers)[0]] += 1
    door.close()


def test_malformed_posts_are_answered_4xx(site: Site) -> None:
    restarts, answers = site.restarts(), [Counter[int]() for _ in range(SENDERS)]
    bearers = [site.door.register(f"poison-{number}")["bearer"] for number in range(SENDERS)]
    senders = [
        threading.Thread(target=post_all, args=(site, bearer, seed, answers[seed]))
        for seed, bearer in enumerate(bearers)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    found = sum(answers, Counter())
    print(dict(found))
    assert found.total() == EACH // SENDERS * SENDERS
    assert {status // 100 for status in found} == {4}, found
    assert [site.door.rows(f"poison-{number}") for number in range(SENDERS)] == [[]] * SENDERS
    assert_unharmed(site, restarts)


def test_malformed_messages_end_in_quarantine(site: Site) -> None:
    restarts, inputs = site.restarts(), malformed(12)
    before = site.installation.get("/v1/ledger")
    secret = site.door.register("poisoner")["secret"]
    published: set[int] = set()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="poisoner")
    client.username_pw_set("poisoner", secret)
    client.on_publish = lambda _client, _data, mid, _reason, _properties: published.add(mid)
    client.max_inflight_messages_set(500)
    client.connect(*site.mqtt)
    client.loop_start()
    for _ in range(EACH):
        client.publish("devices/poisoner/telemetry", next(inputs), 1)
    wait_until(lambda: len(published) == min(EACH, 65_535), 600, "the broker has all")
    client.disconnect()
    client.loop_stop()

    ledger = wait_until(
        lambda: (now := site.installation.get("/v1/ledger"))["received"] >= before["received"] + EACH and now,
        600,
        "ended",
    )
    assert ledger["accepted"] == before["accepted"]
    assert site.door.rows("poisoner") == []
    assert_unharmed(site, restarts)


def test_rubbish_on_the_doors_ends_no_process(site: Site) -> None:
    restarts, chance = site.restarts(), random.Random(3)
    for number in range(200):
        address = site.mqtt if number % 2 else ("127.0.0.1", site.installation.port)
        with socket.create_connection(address, timeout=5) as connection, suppress(OSError):
            connection.sendall(chance.randbytes(chance.randrange(1, 400)))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1_000)
    assert_unharmed(site, restarts)


def test_rubbish_on_the_feed_ends_no_process(site: Site) -> None:
    restarts, chance = site.restarts(), random.Random(4)
    for _ in range(50):
        with open_feed(site) as connection, suppress(OSError):
            connection.sendall(frame(chance.randbytes(chance.randrange(1, 120)), chance.choice((1, 2, 8, 9, 15))))
            connection.sendall(chance.randbytes(50))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1_000)
    assert_unharmed(site, restarts)


def open_feed(site: Site) -> socket.socket:
    """Shake hands with the feed (RFC 6455 s. 4.1), as a plain socket."""
    connection = ask_for_feed(site)
    answer = connection.recv(4_096)
    assert b" 101 " in answer, answer
    return connection


def ask_for_feed(site: Site) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", site.installation.port), timeout=15)
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET /v1/feed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.installation.token}\r\nUpgrade: websocket\r\n"
    )
    head += f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def frame(content: bytes, opcode: int = 1) -> bytes:
    """A masked frame of a client (RFC 6455 s. 5.2), the mask being zero."""
    return bytes([0x80 | opcode, 0x80 | len(content)]) + bytes(4) + content


def assert_unharmed(site: Site, restarts: dict[str, int]) -> None:
    assert site.restarts() == restarts
    assert site.installation.call("GET", "/v1/quarantine?code=internal").body["items"] == [], "no fault of ours"
    device = site.installation.add_device(f"after-{random.randbytes(4).hex()}")
    assert site.installation.post(device, b'{"a":1}').status == 202
    wait_until(lambda: site.door.rows(device.id), 15, "a good reading goes through")
