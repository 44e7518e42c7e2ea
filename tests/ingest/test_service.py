"""The verbs: what is kept in which order, what a refusal of the spool takes back, how a batch's messages end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.framing import Batch, Delivery
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.quarantine import Selection
from tests.ingest.intake_support import World
from wire import clock
from wire.errors import SpoolFull, TooManyRequests, Unavailable
from wire.points import REDELIVERED, RETAINED, SERVER_TIME, UNCERTAIN

T = 1_772_700_000 * clock.NS_PER_S


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.registry.add("d1")
    made.registry.add("d2")
    yield made
    made.close()


def message(world: World, content: bytes, protocol: str = "json", device: str = "d1") -> Message:
    return Message(world.gate.find([device]).known[device], PROTOCOLS[protocol], content, T)


def deliver(payload: bytes, device: str = "d1", mid: int = 1, **members) -> Delivery:
    members = {"topic": f"devices/{device}/telemetry"} | members
    return Delivery(device, payload=payload, received_ns=T, mid=mid, **members)


def send(world: World, *deliveries: Delivery):
    verdict = world.service.accept_batch(Batch("b", list(deliveries)))
    return verdict.accepted, [(each.index, each.end, each.code) for each in verdict.endings]


def test_full_spool_takes_back_what_was_quarantined(world) -> None:
    world.commit.error = SpoolFull("full")

    with pytest.raises(SpoolFull):
        world.service.accept(message(world, b'[{"a":1},5]'))

    assert world.quarantine.totals() == {"quarantined": 0, "refused": 0, "pruned": 0, "bytes": 0}


def test_full_spool_keeps_nothing_of_a_batch(world) -> None:
    world.commit.error = SpoolFull("full")

    with pytest.raises(SpoolFull):
        send(world, deliver(b'{"a":1}'), deliver(b"{"))

    assert world.quarantine.totals()["quarantined"] == 0


def test_what_is_kept_counts_as_used_once(world) -> None:
    world.commit.error = SpoolFull("full")
    for attempt in (lambda: send(world, deliver(b'{"a":1}')), lambda: world.service.accept(message(world, b'{"a":1}'))):
        with pytest.raises(SpoolFull):
            attempt()
    untold = world.reports.usage.take_types()
    world.commit.error = None

    send(world, deliver(b'[{"a":1},5]'), deliver(b"{}", "d9"))
    world.service.accept(message(world, b'{"a":1}'))

    used = world.reports.usage
    assert (untold, used.take_types()) == ({}, {("default", ""): [2, 3, 18]})
    assert used.take_devices() == {("default", "d1"): [2, 3, 18]}


def test_batch_is_kept_with_one_append(world) -> None:
    assert send(world, deliver(b'{"a":1}'), deliver(b'{"a":2}', "d2"), deliver(b'{"a":3}')) == (3, [])
    assert world.commit.appends == 1
    assert [reading.fields["a"] for reading in world.commit.readings] == [1, 2, 3]


def test_batch_keeps_receipt_order_round_a_bad_neighbour(world) -> None:
    accepted, endings = send(world, deliver(b'[{"a":1},5]'), deliver(b'{"a":2}'), deliver(b"{"), deliver(b'{"a":3}'))

    assert accepted == 3
    assert [reading.fields["a"] for reading in world.commit.readings] == [1, 2, 3]
    assert endings == [(0, "quarantined", "bad_structure"), (2, "quarantined", "bad_syntax")]


def test_unknown_device_is_quarantined_and_disabled_refused(world) -> None:
    world.registry.add("d3", state="disabled")

    assert send(world, deliver(b"{}", "d9"), deliver(b'{"a":1}', "d3")) == (
        0, [(1, "refused", "device_disabled"), (0, "quarantined", "unknown_device")],
    )  # fmt: skip


def test_registry_away_defers_only_unknown_devices(world) -> None:
    send(world, deliver(b'{"a":1}'))
    world.registry.is_away = True

    assert send(world, deliver(b'{"a":2}'), deliver(b'{"a":3}', "d2")) == (1, [(1, "deferred", "peer_unavailable")])


def test_topic_of_another_device_is_refused_and_audited(world) -> None:
    assert send(world, deliver(b'{"a":1}', topic="devices/d2/telemetry")) == (0, [(0, "refused", "identity_mismatch")])
    world.reports.send()
    assert world.registry.audit[0]["actor"] == "device:d1"


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("devices/d1/telemetry/nonsense", "unsupported"),
        ("devices/d1/other", "bad_topic"),
        ("other", "bad_topic"),
        ("devices/a b/telemetry", "bad_topic"),
    ],
)
def test_topic_that_is_not_ours_is_quarantined(world, topic, code) -> None:
    assert send(world, deliver(b'{"a":1}', topic=topic)) == (0, [(0, "quarantined", code)])


def test_empty_payload_is_no_message(world) -> None:
    assert send(world, deliver(b"", retain=True)) == (0, [])


def test_payload_over_the_limit_is_refused(world) -> None:
    assert send(world, deliver(b" " * (256 * 1024 + 1))) == (0, [(0, "refused", "too_large")])


def test_redelivery_is_marked_and_carries_its_content(world) -> None:
    send(world, deliver(b'{"a":1}', mid=7))
    send(world, deliver(b'{"a":1}', mid=7, dup=True))

    first, second = world.commit.readings
    assert (first.flags, second.flags) == (SERVER_TIME, SERVER_TIME | REDELIVERED)
    assert (first.delivery, first.content) == (second.delivery, second.content) == (7, first.content)
    assert -(2**63) <= first.content < 2**63


def test_same_message_id_in_another_session_of_the_broker_is_another_content(world) -> None:
    """A broker that lost its state gives out the same ids again: a new message must not pass for an old one."""
    for bridge in ("b/one", "b/two"):
        world.service.accept_batch(Batch(bridge, [deliver(b'{"a":1}', mid=7, dup=True)]))

    first, second = world.commit.readings
    assert first.content != second.content


@pytest.mark.parametrize(
    ("payload", "mid", "delivery"),
    [(b'{"ts":1772600000,"a":1}', 7, 7), (b'{"boot_id":"b","seq":1,"a":1}', 7, 7), (b'{"a":1}', 0, 0)],
)
def test_content_is_only_for_readings_without_a_key(world, payload, mid, delivery) -> None:
    send(world, deliver(payload, mid=mid))

    found = world.commit.readings[0]
    assert (found.delivery, found.content) == (delivery, 0)


def test_clamped_time_counts_as_no_time(world) -> None:
    send(world, deliver(b'{"ts":5,"a":1}', mid=7))

    assert world.commit.readings[0].flags == SERVER_TIME | UNCERTAIN
    assert world.commit.readings[0].delivery == 7


def test_records_without_time_do_not_share_a_point(world) -> None:
    send(world, deliver(b'[{"a":1},{"a":2}]'))

    assert [reading.time_ns for reading in world.commit.readings] == [T, T + 1]


def test_retained_needs_its_own_time(world) -> None:
    retained = deliver(b'{"ts":1772600000,"a":1}', retain=True), deliver(b'{"a":1}', retain=True)

    assert send(world, *retained) == (1, [(1, "quarantined", "retained")])
    assert world.commit.readings[0].flags & RETAINED


def test_failing_decoder_quarantines_the_message(world) -> None:
    def decode(content, context):
        raise RuntimeError("a fault of ours")

    protocol = PROTOCOLS["json"]
    broken = type(protocol)("json", "json", decode)
    world.service.protocols["json"] = broken

    assert send(world, deliver(b'{"a":1}')) == (0, [(0, "quarantined", "internal")])


def test_field_keeps_its_first_type_after_restart(tmp_path) -> None:
    first = World(tmp_path)
    first.registry.add("d1")
    send(first, deliver(b'{"a":"text"}'))
    first.close()
    second = World(tmp_path)
    second.registry.add("d1")

    assert send(second, deliver(b'{"a":1,"b":2}')) == (1, [(0, "quarantined", "type_conflict")])
    assert second.commit.readings[0].fields == {"b": 2.0}
    second.close()


def test_conflict_of_the_only_field_leaves_no_reading(world) -> None:
    send(world, deliver(b'{"a":"text"}'))

    assert send(world, deliver(b'{"a":1}')) == (0, [(0, "quarantined", "type_conflict")])


def test_seen_devices_are_reported(world) -> None:
    send(world, deliver(b'{"a":1}'))
    world.reports.send()

    assert (world.registry.seen, world.registry.seen_by_mqtt) == ({}, {"d1": T})


def test_one_device_cannot_fill_the_quarantine(tmp_path) -> None:
    world = World(tmp_path, limit_bytes=16 * 1024)
    world.registry.add("d1")
    world.registry.add("d2")
    while send(world, deliver(b"{"))[1][0][1] == "quarantined":
        pass

    assert send(world, deliver(b'[{"a":1},5]')) == (1, [(0, "refused", "quarantine_full")])
    assert send(world, deliver(b"{", "d2")) == (0, [(0, "quarantined", "bad_syntax")])
    with pytest.raises(TooManyRequests, match=r"bad_syntax: .* share of the quarantine is full") as refused:
        world.service.accept(message(world, b"{"))
    [told] = world.service.accept(message(world, b'[{"a":1},5]')).quarantined
    assert (refused.value.code, told.code) == ("quarantine_full", "quarantine_full")
    world.close()


def test_what_is_refused_counts_for_the_tenant_that_sent_it(tmp_path) -> None:
    world = World(tmp_path, limit_bytes=16 * 1024)
    world.registry.add("d1", tenant="acme")
    world.registry.add("d2", tenant="other", state="disabled")
    while send(world, deliver(b"{"))[1][0][1] == "quarantined":
        pass
    world.service.save_counts()
    before = world.quarantine.totals_of("acme")[1]

    send(world, deliver(b'[{"a":1},5,6]'), deliver(b"{}", "d2"), deliver(b"{}", "d9", topic="devices/d1/telemetry"))
    world.service.accept(message(world, b'[{"a":1},5]'))
    world.service.refuse("json", "acme")
    world.service.save_counts()

    assert world.quarantine.totals_of("acme")[1] - before == 4
    assert world.quarantine.totals_of("other")[1] == 1
    assert world.quarantine.totals()["refused"] - before == 6, "nobody knows whose the message of d9 was"
    world.close()


def test_full_quarantine_keeps_nothing_and_says_later(tmp_path) -> None:
    world = World(tmp_path, limit_bytes=0)
    world.registry.add("d1")

    with pytest.raises(Unavailable) as refused:
        world.service.accept(message(world, b'[{"a":1},5]'))

    assert refused.value.code == "quarantine_full"
    assert world.commit.readings == []
    assert send(world, deliver(b'[{"a":1},5]'), deliver(b'{"a":2}')) == (1, [(0, "deferred", "quarantine_full")])
    assert [reading.fields["a"] for reading in world.commit.readings] == [2]
    world.close()


def test_message_over_the_rate_is_refused_over_http_with_the_time_to_wait(world) -> None:
    world.registry.put_type(name="t", rate_limit="2:10")
    world.registry.add("d3", type="t")
    for _ in range(2):
        world.service.accept(message(world, b'{"a":1}', device="d3"))

    with pytest.raises(TooManyRequests) as refused:
        world.service.accept(message(world, b'{"a":1}', device="d3"))

    assert refused.value.retry_after_s == 5
    assert len(world.commit.readings) == 2
    assert world.service.accept(message(world, b'{"a":1}')).accepted == 1


def test_limit_of_one_device_goes_before_that_of_its_type(world) -> None:
    world.registry.put_type(name="t", rate_limit="5:3600")
    for name, limit in (("few", "1:3600"), ("free", ""), ("plain", None)):
        world.registry.add(name, type="t", rate_limit=limit)

    def admitted(name: str) -> int:
        endings = world.service.accept_batch(Batch("b", [deliver(b'{"a":1}', name) for _ in range(7)])).endings
        return 7 - len(endings)

    assert [admitted(name) for name in ("few", "free", "plain")] == [1, 7, 5]
    with pytest.raises(TooManyRequests):
        world.service.accept(message(world, b'{"a":2}', device="few"))
    world.registry.add("few", type="t")
    world.gate.poll()
    assert world.service.accept(message(world, b'{"a":2}', device="few")).accepted == 1


def test_type_over_the_limit_of_all_its_devices_is_refused_or_waits(world) -> None:
    world.registry.put_type(name="t", type_rate_limit="messages 2:3600")
    for name in ("a", "b", "c"):
        world.registry.add(name, type="t")

    first = world.service.accept_batch(Batch("b", [deliver(b'{"a":1}', name) for name in ("a", "b", "c")]))
    with pytest.raises(TooManyRequests) as refused:
        world.service.accept(message(world, b'{"a":2}', device="c"))
    world.registry.put_type(name="t", version=2)
    world.gate.poll()

    assert [(each.index, each.end, each.code) for each in first.endings] == [(2, "deferred", "rate_limited")]
    assert "all devices of its type" in refused.value.detail
    assert world.service.accept(message(world, b'{"a":2}', device="c")).accepted == 1


def test_tenant_over_its_own_limit_is_refused_until_the_limit_is_lifted(world) -> None:
    world.registry.limit_tenant("default", "1:3600")
    world.service.accept(message(world, b'{"a":1}'))

    with pytest.raises(TooManyRequests) as refused:
        world.service.accept(message(world, b'{"a":2}'))
    deferred = world.service.accept_batch(Batch("b", [deliver(b'{"a":2}')])).endings
    world.registry.limit_tenant("default", None)
    world.gate.poll()

    assert "all devices of its tenant" in refused.value.detail
    assert [(each.end, each.code) for each in deferred] == [("deferred", "rate_limited")]
    assert world.service.accept(message(world, b'{"a":2}')).accepted == 1


def test_every_reading_of_a_message_counts_for_the_rate(world) -> None:
    world.registry.put_type(name="t", rate_limit="3:60")
    world.registry.add("d3", type="t")

    world.service.accept(message(world, b'[{"a":1},{"a":2},{"a":3},5]', device="d3"))

    with pytest.raises(TooManyRequests) as refused:
        world.service.accept(message(world, b'{"a":1}', device="d3"))
    assert refused.value.retry_after_s == 40  # one was a debt


def test_messages_over_the_rate_are_deferred_each_by_its_turn(world) -> None:
    world.registry.put_type(name="t", rate_limit="2:2")
    world.registry.add("d3", type="t")
    deliveries = [deliver(b'{"a":1}', device="d3") for _ in range(4)]

    verdict = world.service.accept_batch(Batch("b", [*deliveries, deliver(b'{"a":1}')]))

    assert verdict.accepted == 3
    assert [(each.index, each.end, each.code) for each in verdict.endings] == [
        (2, "deferred", "rate_limited"),
        (3, "deferred", "rate_limited"),
    ]
    assert [each.retry_s for each in verdict.endings] == pytest.approx([1.0, 2.0], abs=0.1)


def test_surplus_of_a_device_over_its_rate_waits_in_the_quarantine_and_replays(world) -> None:
    world.registry.put_type(name="t", rate_limit="1:3600")
    world.registry.add("d3", type="t")
    send(world, deliver(b'{"a":1}', device="d3"))

    ends = send(world, deliver(b'[{"a":2},{"a":3}]', device="d3", is_surplus=True))
    replayed = world.replayer.replay_selection(Selection(device="d3"))

    assert ends == (0, [(0, "quarantined", "rate_limited")])
    assert (replayed.replayed, replayed.failed) == (1, [])
    assert [reading.fields["a"] for reading in world.commit.readings] == [1.0, 2.0, 3.0]


def test_type_names_the_field_that_tells_a_clock_is_off(world) -> None:
    rules = {"time_skew_s": 0, "time_skew_field": "clock_ahead_s", "unknown_fields": "quarantine"}
    world.registry.put_type(name="t", fields={"a": {}}, **rules)
    world.registry.add("d3", type="t")
    content = b'[{"ts":%d,"a":1},{"ts":%d,"a":2},{"a":3},{"ts":86400,"a":4}]' % (T // 10**6 + 2_500, T // 10**6)

    receipt = world.service.accept(message(world, content, device="d3"))

    assert receipt == (4, [])
    found = [(reading.time_ns - T, reading.fields) for reading in world.commit.readings]
    assert found[:3] == [(0, {"a": 1.0, "clock_ahead_s": 2.5}), (0, {"a": 2.0}), (2, {"a": 3.0})]
    assert found[3][1]["clock_ahead_s"] < -50 * 365 * 86_400


def test_reading_outside_the_window_of_its_type_waits_in_the_quarantine(world) -> None:
    world.registry.put_type(name="t", time_back_s=60, time_ahead_s=700)
    world.registry.add("d3", type="t")
    now_ms = T // 10**6
    content = b'[{"ts":%d,"a":1},{"ts":%d,"a":2},{"ts":%d,"a":3}]' % (now_ms - 61_000, now_ms, now_ms + 701_000)

    receipt = world.service.accept(message(world, content, device="d3"))

    assert receipt.accepted == 1
    assert [(item.record, item.code) for item in receipt.quarantined] == [(0, "too_old"), (2, "too_new")]
    assert receipt.quarantined[0].detail == "61 s before its arrival, limit 60 s"


def test_every_reading_counts_for_the_rate_over_mqtt_too(world) -> None:
    world.registry.put_type(name="t", rate_limit="3:60")
    world.registry.add("d3", type="t")

    verdict = world.service.accept_batch(
        Batch("b", [deliver(b'[{"a":1},{"a":2},{"a":3},5]', device="d3"), deliver(b'{"a":1}', device="d3")])
    )

    assert [(each.index, each.end) for each in verdict.endings] == [(1, "deferred"), (0, "quarantined")]
    assert verdict.endings[0].retry_s == pytest.approx(40, abs=0.5)


def test_readings_and_entries_carry_the_version_they_were_judged_by(world) -> None:
    world.registry.put_type(name="g", version=3, version_id=41, fields={"t": {"type": "float", "max": 9}})
    world.registry.add("typed", type="g")

    world.service.accept(message(world, b'{"t":1}', device="typed"))
    world.service.accept(message(world, b'{"t":1.5,"u":{"v":10}}', device="typed"))
    world.service.accept(message(world, b'{"t":10}', device="typed"))
    world.service.accept(message(world, b'{"t":1}'))

    assert [reading.judged_by for reading in world.commit.readings] == [41, 41, 0]
    assert [(e.type, e.type_version) for e in world.quarantine.page(Selection())] == [("g", 3)]
