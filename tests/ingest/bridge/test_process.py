"""The bridge as a process between a real broker and a small ingest service: killed, frozen, misled, and nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from random import Random

import pytest

from ingest.bridge import process
from ingest.bridge.session import save_session
from ingest.framing import Batch, Ending, Verdict
from tests.ingest.bridge.support import BridgeProcess, defer_if, take_all
from tests.support.waiting import wait_until

SLOW = {"batch_messages": 100, "linger_s": 0.0}  # many batches, so that kills fall between them


def lost(publisher, ingest) -> int:
    taken = ingest.payloads()
    return sum(1 for payload in publisher.acked if payload not in taken)


def publish_under_kills(publisher, process: BridgeProcess, kills: int) -> None:
    random = Random(7)
    process.wait_ready()
    for number in range(kills):
        publisher.send_numbers(3000 // kills, first=number * 3000 // kills)
        threading.Event().wait(random.uniform(0.0, 0.15))  # the moment of the kill is the point of the test
        process.stop(signal.SIGKILL)
        process.start()
    publisher.wait_acked()


def test_kills_of_the_bridge_lose_nothing(bridge_ingest, bridge_start, bridge_publisher):
    process = bridge_start(**SLOW)

    publish_under_kills(bridge_publisher, process, kills=6)

    wait_until(lambda: len(bridge_ingest.payloads()) == 3000, 30, "all are taken")
    assert lost(bridge_publisher, bridge_ingest) == 0


def test_automatic_acks_would_lose_messages(bridge_ingest, bridge_start, bridge_publisher):
    bridge_ingest.behave = bridge_ingest.hang
    process = bridge_start(mutation="automatic_ack", **SLOW)

    process.wait_ready()
    bridge_publisher.send_numbers(1000)
    bridge_publisher.wait_acked()
    wait_until(lambda: bridge_ingest.batches, what="a batch is under way")
    process.stop(signal.SIGKILL)
    bridge_ingest.behave = take_all
    bridge_ingest.release.set()
    process.start().wait_ready()
    bridge_publisher.send("last", b"last")

    wait_until(lambda: b"last" in bridge_ingest.payloads(), what="the newest is taken")
    assert lost(bridge_publisher, bridge_ingest) > 100


def stale_ack(mosquitto, ingest, publisher, process: BridgeProcess) -> None:
    """T10: a batch is answered after the broker came back without its state and gave the same mids to other messages."""
    answered, arrived = threading.Event(), threading.Event()
    ingest.behave = lambda batch: arrived.set() or (answered.wait(20) and take_all(batch))
    process.wait_ready()
    publisher.send_numbers(10)
    assert arrived.wait(10)
    mosquitto.stop(signal.SIGKILL)
    mosquitto.forget()
    mosquitto.start()
    wait_until(lambda: process.events_of_last_start().count("subscribed") == 2, what="subscribed again")
    arrived.clear()
    publisher.send_numbers(10, first=100)
    publisher.wait_acked()
    ingest.behave = lambda batch: arrived.set() or ingest.hang(batch)
    answered.set()
    assert arrived.wait(10), "the second batch follows the first"
    process.stop(signal.SIGKILL)
    ingest.behave = take_all
    ingest.release.set()
    process.start().wait_ready()
    publisher.send("last", b'{"n":999}')
    wait_until(lambda: b'{"n":999}' in ingest.payloads(), what="the newest is taken")


def test_stale_acks_delete_no_new_messages(mosquitto, bridge_ingest, bridge_start, bridge_publisher):
    stale_ack(mosquitto, bridge_ingest, bridge_publisher, bridge_start(linger_s=0.3))

    bridge_publisher.wait_acked()
    assert lost(bridge_publisher, bridge_ingest) == 0


def test_without_the_epoch_guard_new_messages_are_deleted(mosquitto, bridge_ingest, bridge_start, bridge_publisher):
    process = bridge_start(mutation="no_epoch_guard", linger_s=0.3)

    stale_ack(mosquitto, bridge_ingest, bridge_publisher, process)

    bridge_publisher.wait_acked()
    assert lost(bridge_publisher, bridge_ingest) == 10


def test_acks_into_a_dead_connection_cost_no_message(mosquitto, bridge_ingest, bridge_start, bridge_publisher):
    answered, arrived = threading.Event(), threading.Event()
    bridge_ingest.behave = lambda batch: arrived.set() or (answered.wait(20) and take_all(batch))
    process = bridge_start(linger_s=0.2).wait_ready()
    bridge_publisher.send_numbers(50)
    bridge_publisher.wait_acked()
    assert arrived.wait(10)

    mosquitto.stop()
    wait_until(lambda: "broker_away" in process.events(), what="the connection is gone")
    answered.set()
    wait_until(lambda: len(bridge_ingest.taken) == 50, what="the batch is taken, its acks have nowhere to go")
    mosquitto.start()

    wait_until(lambda: len(bridge_ingest.taken) == 100, what="all come again")
    assert all(each.dup for each in bridge_ingest.taken[50:])
    first = {each.payload: (each.mid, each.received_ns) for each in bridge_ingest.taken[:50]}
    again = {each.payload: (each.mid, each.received_ns) for each in bridge_ingest.taken[50:]}
    assert first == again, "a redelivered reading keeps its time, and so stays one point"


def test_what_the_bridge_holds_outlives_a_broker_that_lost_it(mosquitto, bridge_ingest, bridge_start, bridge_publisher):
    bridge_ingest.behave = lambda batch: (503, b"")
    process = bridge_start(**SLOW).wait_ready()
    bridge_publisher.send_numbers(500)
    bridge_publisher.wait_acked()
    wait_until(lambda: b"headwater_bridge_unacked 500.0" in probe(process.probe_port(), "/metrics")[1], what="held")

    mosquitto.stop(signal.SIGKILL)
    mosquitto.forget()
    mosquitto.start()
    wait_until(lambda: process.events_of_last_start().count("subscribed") == 2, what="subscribed again")
    bridge_ingest.behave = take_all

    wait_until(lambda: len(bridge_ingest.payloads()) == 500, what="all are taken")
    assert [numbers for numbers in bridge_ingest.by_device().values() if numbers != sorted(numbers)] == []


def test_broker_restarts_are_survived(mosquitto, bridge_ingest, bridge_start, bridge_publisher):
    bridge_start(**SLOW).wait_ready()

    for number in range(3):
        bridge_publisher.send_numbers(500, first=number * 500)
        mosquitto.stop()
        mosquitto.start()
    bridge_publisher.wait_acked(60)

    wait_until(lambda: len(bridge_ingest.payloads()) == 1500, 60, "all are taken")


def test_frozen_broker_is_left_and_found_again(mosquitto, bridge_ingest, bridge_start, bridge_publisher):
    process = bridge_start(keepalive_s=1).wait_ready()
    bridge_publisher.send_numbers(10)
    bridge_publisher.wait_acked()

    mosquitto.send_signal(signal.SIGSTOP)
    wait_until(lambda: "broker_away" in process.events(), what="its silence is noticed")
    mosquitto.send_signal(signal.SIGCONT)
    wait_until(lambda: process.events().count("subscribed") == 2, 30, "connected again")
    bridge_publisher.send_numbers(10, first=10)

    wait_until(lambda: len(bridge_ingest.payloads()) == 20, 30, "all are taken")


def test_frozen_bridge_goes_on_where_it_was(bridge_ingest, bridge_start, bridge_publisher):
    process = bridge_start(keepalive_s=1, **SLOW).wait_ready()
    process.send_signal(signal.SIGSTOP)
    bridge_publisher.send_numbers(500)
    bridge_publisher.wait_acked()
    threading.Event().wait(2)  # longer than the broker's patience of 1.5 keepalives

    process.send_signal(signal.SIGCONT)

    wait_until(lambda: len(bridge_ingest.payloads()) == 500, what="all are taken")


def test_ingest_away_for_a_while_costs_nothing(bridge_ingest, bridge_start, bridge_publisher):
    bridge_ingest.behave = lambda batch: (503, b"")
    process = bridge_start(**SLOW).wait_ready()
    bridge_publisher.send_numbers(1000)
    bridge_publisher.wait_acked()
    wait_until(lambda: process.events().count("batch_failed") >= 5, what="several attempts")
    assert bridge_ingest.taken == []

    bridge_ingest.behave = take_all

    wait_until(lambda: len(bridge_ingest.payloads()) == 1000, what="all are taken")
    assert len(bridge_ingest.taken) == 1000
    assert all(numbers == sorted(numbers) for numbers in bridge_ingest.by_device().values())


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b'{"status":"ok"}', b"[]", b"\xff"])
def test_success_without_a_verdict_is_not_believed(body, bridge_ingest, bridge_start, bridge_publisher):
    bridge_ingest.behave = lambda batch: (200, body)
    process = bridge_start().wait_ready()
    bridge_publisher.send_numbers(20)
    wait_until(lambda: "batch_failed" in process.events(), what="the answer is refused")

    process.stop(signal.SIGKILL)
    bridge_ingest.behave = take_all
    process.start()

    wait_until(lambda: len(bridge_ingest.payloads()) == 20, what="all are taken by the next")


def test_hanging_ingest_is_tried_again(bridge_ingest, bridge_start, bridge_publisher):
    bridge_ingest.behave = bridge_ingest.hang
    process = bridge_start(answer_timeout_s=0.3).wait_ready()
    bridge_publisher.send_numbers(100)
    wait_until(lambda: process.events().count("batch_failed") >= 2, what="timeouts")

    bridge_ingest.behave = take_all

    wait_until(lambda: len(bridge_ingest.payloads()) == 100, what="all are taken")


def test_full_window_longer_than_keepalive_keeps_the_connection(
    mosquitto, bridge_ingest, bridge_start, bridge_publisher
):
    bridge_ingest.behave = lambda batch: (503, b"")
    process = bridge_start(keepalive_s=2, window_messages=200, retry_most_s=0.2).wait_ready()
    for number in range(3000):
        bridge_publisher.send(f"d{number % 10}", b'{"n":%d,"pad":"%s"}' % (number, b"x" * 2000))
    bridge_publisher.wait_acked()

    wait_until(
        lambda: b"headwater_bridge_paused 1.0" in probe(process.probe_port(), "/metrics")[1],
        what="the socket is unread",
    )
    threading.Event().wait(6)  # the broker's patience is 3 s
    bridge_ingest.behave = take_all

    wait_until(lambda: len(bridge_ingest.payloads()) == 3000, 30, "all are taken")
    assert process.events().count("subscribed") == 1
    assert "_bridge has exceeded timeout" not in mosquitto.log()
    assert len(bridge_ingest.taken) == 3000


def test_poison_among_good_messages_is_told_and_holds_up_nothing(bridge_ingest, bridge_start, bridge_publisher):
    def judge(batch: Batch) -> Verdict:
        bad = [i for i, each in enumerate(batch.deliveries) if not each.payload.startswith(b'{"n"')]
        return Verdict(
            len(batch.deliveries) - len(bad), [Ending(i, "quarantined", "bad_syntax", "not JSON") for i in bad]
        )

    told: list[tuple[str, dict[str, str]]] = []
    client = bridge_publisher.client
    client.on_message = lambda _client, _userdata, message: told.append((message.topic, json.loads(message.payload)))
    client.subscribe("devices/+/errors")
    bridge_ingest.behave = judge
    bridge_start().wait_ready()

    for number in range(60):
        bridge_publisher.send("good", b'{"n":%d}' % number)
        bridge_publisher.send("bad", b"\x00\xff{")
    bridge_publisher.send("", b"{}", topic="devices/ü ü/telemetry/unheard-of")
    bridge_publisher.send("good", b'{"n":60}', qos=0)
    bridge_publisher.wait_acked()

    wait_until(lambda: len(bridge_ingest.taken) == 122, what="every message has its end")
    wait_until(lambda: told, what="the device is told")
    topic, notice = told[0]
    assert (topic, notice["code"], notice["topic"]) == ("devices/bad/errors", "bad_syntax", "devices/bad/telemetry")
    assert 1 <= len(told) <= 30


def test_message_beyond_all_limits_is_refused_and_acknowledged(
    mosquitto, bridge_ingest, bridge_start, bridge_publisher
):
    process = bridge_start().wait_ready()

    bridge_publisher.send("d", b"x" * 2_000_000)
    bridge_publisher.send("d", b'{"n":1}')
    bridge_publisher.wait_acked()

    wait_until(lambda: bridge_ingest.payloads() == {b'{"n":1}': 1}, what="the next one is taken")
    assert "message_refused" in process.events()
    process.stop()
    process.start().wait_ready()
    bridge_publisher.send("d", b'{"n":2}')
    wait_until(lambda: b'{"n":2}' in bridge_ingest.payloads(), what="taken")
    assert process.events().count("message_refused") == 1


def test_termination_finishes_the_batch_in_flight_and_keeps_the_session(
    mosquitto, bridge_ingest, bridge_start, bridge_publisher
):
    arrived = threading.Event()
    answered = threading.Event()
    bridge_ingest.behave = lambda batch: arrived.set() or (answered.wait(10) and take_all(batch))
    process = bridge_start(linger_s=0.1).wait_ready()
    bridge_publisher.send_numbers(10)
    assert arrived.wait(10)
    threading.Timer(0.3, answered.set).start()

    assert process.stop() == 0
    bridge_publisher.send_numbers(10, first=10)
    bridge_publisher.wait_acked()
    process.start()

    wait_until(lambda: len(bridge_ingest.payloads()) == 20, what="what came meanwhile is taken")
    assert len(bridge_ingest.taken) == 20, "the finished batch was acknowledged"


def test_new_session_survives_a_crash_of_the_broker(mosquitto, bridge_ingest, bridge_start, bridge_publisher):
    process = bridge_start().wait_ready()
    wait_until((mosquitto.folder / "mosquitto.db").exists, what="the broker was asked to save")
    process.stop()

    mosquitto.stop(signal.SIGKILL)
    mosquitto.start()
    bridge_publisher.send_numbers(10)
    bridge_publisher.wait_acked()
    process.start()

    wait_until(lambda: len(bridge_ingest.payloads()) == 10, what="queued for a session that outlived the crash")


def test_probes_tell_whether_the_broker_is_there(mosquitto, bridge_start):
    process = bridge_start().wait_ready()
    port = process.probe_port()

    assert probe(port, "/readyz")[0] == 200
    assert b"headwater_bridge_messages_total" in probe(port, "/metrics")[1]
    mosquitto.stop()
    wait_until(lambda: probe(port, "/readyz")[0] == 503, what="not ready")
    assert probe(port, "/livez")[0] == 200


def probe(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_bad_setting_ends_with_one_line(monkeypatch, capsys):
    monkeypatch.setenv("HEADWATER_BROKER", "nonsense:port")

    assert process.main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_only_a_mosquitto_is_signalled(tmp_path):
    pid_file = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        for text in (str(stranger.pid), "nonsense", "99999999"):
            pid_file.write_text(text)
            save_session(pid_file)  # would end the stranger, when it did not look at the name
        save_session(tmp_path / "absent")
        stranger.communicate(b"\n", timeout=10)

    assert stranger.returncode == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_storm_of_faults_loses_nothing_and_keeps_the_order(
    seed, mosquitto, bridge_ingest, bridge_start, bridge_publisher
):
    random = Random(seed)
    bridge_ingest.behave = moody(random)
    process = bridge_start(retry_first_s=0.01, retry_most_s=0.1, window_messages=500, **SLOW).wait_ready()

    for number in range(12):
        bridge_publisher.send_numbers(250, first=number * 250)
        threading.Event().wait(random.uniform(0.1, 0.5))
        fault = random.choice(["kill bridge", "stop bridge", "restart broker"])
        if fault == "restart broker":
            mosquitto.stop()
            mosquitto.start()
        else:
            process.stop(signal.SIGKILL if fault == "kill bridge" else signal.SIGTERM)
            process.start()
    bridge_publisher.wait_acked()

    wait_until(lambda: len(bridge_ingest.payloads()) == 3000, 30, "all are taken")
    assert lost(bridge_publisher, bridge_ingest) == 0
    assert [numbers for numbers in bridge_ingest.by_device().values() if numbers != sorted(numbers)] == []


def moody(random: Random) -> Callable[[Batch], Verdict | tuple[int, bytes]]:
    """Answer every second batch well, the others in all the bad ways."""

    def behave(batch: Batch) -> Verdict | tuple[int, bytes]:
        mood = random.random()
        if mood < 0.5:
            return take_all(batch)
        if mood < 0.7:
            late = f"d{random.randrange(10)}"
            return defer_if(lambda each: each.device == late)(batch)
        blame = 413 if len(batch.deliveries) > 1 else 503  # of a message alone it would be believed
        return random.choice([(503, b""), (500, b"oops"), (200, b"nonsense"), (429, b""), (blame, b"{}")])

    return behave
