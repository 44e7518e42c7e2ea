from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard_api import hub as hub_module
from dashboard_api.hub import (
    MAX_CONFLATED_BYTES,
    MAX_HELD_BYTES,
    MAX_QUEUED,
    MAX_QUEUED_BYTES,
    MAX_STALL_S,
    SENT,
    VALUE_BYTES,
    Hub,
    Item,
    Viewer,
    encode,
)
from tests.support.waiting import wait_until
from wire.feed import MAX_FRAME_BYTES, Subscription


def point(device="d1", second=0, **fields):
    return {
        "device": device,
        "measurement": "telemetry",
        "time": f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000000000Z",
        "tags": {},
        "fields": fields or {"temp": 1.0},
    }


def message(*points):
    return orjson.dumps({"points": list(points)})


def drain(viewer):
    frames = []
    while (frame := viewer.take_frame(0.0)) is not None:
        assert len(frame) <= MAX_FRAME_BYTES
        frames.append(orjson.loads(frame)["points"])
    return frames


def joined(hub, **wanted):
    viewer = Viewer(Subscription(**wanted))
    hub.join(viewer)
    return viewer


def test_viewer_of_all_gets_every_point():
    hub = Hub()
    viewer = joined(hub)

    hub.publish(message(point("a"), point("b")))

    assert drain(viewer) == [[point("a"), point("b")]]


def test_viewer_gets_nothing_of_another_tenant():
    hub = Hub()
    named, all_of_acme = joined(hub, devices=["a"]), Viewer(Subscription(), "acme")
    hub.join(all_of_acme)

    hub.publish(orjson.dumps({"tenant": "acme", "points": [point("a"), point("b")]}))

    assert drain(named) == []
    assert drain(all_of_acme) == [[point("a"), point("b")]]
    assert sum(hub.rates()) == 0


def test_viewer_of_a_query_gets_what_it_finds_among_those_named():
    hub = Hub()
    viewer = joined(hub, query="online", devices=["a", "b"])
    hub.publish(message(point("a"), point("b")))
    nothing_yet = drain(viewer)

    hub.narrow(viewer, ["b", "c"])
    hub.publish(message(point("a"), point("b"), point("c")))
    hub.narrow(viewer, [])
    hub.publish(message(point("a"), point("b"), point("c")))

    assert nothing_yet == []
    assert drain(viewer) == [[point("b")]]
    hub.leave(viewer)
    assert hub.viewers() == 0


def test_viewer_gets_only_its_devices_and_fields():
    hub = Hub()
    viewer = joined(hub, devices=["a", "b"], fields=["temp"])

    hub.publish(message(point("a", temp=1.0, hum=2.0), point("b", hum=3.0), point("c", temp=4.0)))

    assert drain(viewer) == [[point("a", temp=1.0)]]


def test_viewer_that_left_gets_nothing_and_leaves_nothing_behind():
    hub = Hub()
    viewer = joined(hub, devices=["a"])

    hub.leave(viewer)
    hub.publish(message(point("a")))

    assert drain(viewer) == []
    assert hub.viewers() == 0
    assert hub._of_device == {}


def test_large_backlog_is_split_into_bounded_frames():
    hub = Hub()
    viewer = joined(hub)

    hub.publish(message(*(point(f"d{at}", note="x" * 500) for at in range(400))))

    frames = drain(viewer)
    assert len(frames) > 3
    assert [p["device"] for frame in frames for p in frame] == [f"d{at}" for at in range(400)]


def test_point_larger_than_a_frame_is_split_by_fields():
    big = point(**{f"f{at}": "x" * 1_000 for at in range(100)})

    pieces = encode(big)

    assert all(len(piece) < MAX_FRAME_BYTES for piece in pieces)
    merged = {name: value for piece in pieces for name, value in orjson.loads(piece)["fields"].items()}
    assert merged == big["fields"]


def test_single_value_larger_than_a_frame_is_left_out_and_counted():
    before = hub_module.TOO_BIG._value.get()
    hub = Hub()
    viewer = joined(hub)

    hub.publish(message(point(small=1, huge="x" * 70_000), point("after")))

    assert [p["fields"] for frame in drain(viewer) for p in frame] == [{"small": 1}, {"temp": 1.0}]
    assert hub_module.TOO_BIG._value.get() == before + 1


def test_slow_viewer_gets_the_newest_value_of_each_field_only():
    hub = Hub()
    viewer = joined(hub)

    for second in range(MAX_QUEUED + 500):
        hub.publish(message(point(second=second % 3600, temp=float(second))))
    hub.publish(message(point(second=3599, hum=5.0)))

    assert viewer.backlog() == 2
    (frame,) = drain(viewer)
    assert {name: value for p in frame for name, value in p["fields"].items()} == {
        "temp": MAX_QUEUED + 499.0,
        "hum": 5.0,
    }


def test_late_value_never_replaces_a_newer_one():
    hub = Hub()
    viewer = joined(hub)
    for _ in range(MAX_QUEUED + 1):
        hub.publish(message(point(second=100, temp=100.0)))

    hub.publish(message(point(second=50, temp=50.0)))

    assert drain(viewer) == [[point(second=100, temp=100.0)]]


def test_series_that_differ_by_tags_are_conflated_apart():
    hub = Hub()
    viewer = joined(hub)
    for _ in range(MAX_QUEUED):
        hub.publish(message(point() | {"tags": {"at": "top"}}, point() | {"tags": {"at": "floor"}}))

    (frame,) = drain(viewer)

    assert sorted(p["tags"]["at"] for p in frame) == ["floor", "top"]


def test_viewer_that_caught_up_gets_every_point_again():
    hub = Hub()
    viewer = joined(hub)
    for second in range(MAX_QUEUED + 1):
        hub.publish(message(point(second=second)))
    drain(viewer)

    hub.publish(message(point(second=1, temp=1.0), point(second=2, temp=2.0)))

    assert len(drain(viewer)[0]) == 2


def test_viewer_that_takes_nothing_is_given_up():
    viewer = Viewer(Subscription())
    viewer.offer([Item(point(), {})], 0.0)
    assert viewer.take_frame(0.0)  # and the sender never comes back from sending it

    viewer.offer([Item(point(), {})], MAX_STALL_S - 1)
    assert not viewer.is_given_up
    viewer.offer([Item(point(), {})], MAX_STALL_S + 1)

    assert viewer.is_given_up
    assert viewer.waiting.is_set()
    assert viewer.backlog() == 0
    assert viewer.take_frame(MAX_STALL_S + 2) is None


def test_backlog_over_too_many_series_is_given_up():
    viewer = Viewer(Subscription())

    series = MAX_CONFLATED_BYTES // (2 * VALUE_BYTES)
    viewer.offer((Item(point(f"d{at}"), {}) for at in range(series)), 0.0)

    assert viewer.is_given_up
    assert viewer.backlog() == viewer.held_bytes() == 0


def test_backlog_is_bounded_in_bytes_and_not_only_in_points():
    viewer, held = Viewer(Subscription()), []

    for second in range(100):
        viewer.offer([Item(point(second=second, note="x" * 50_000), {})], 0.0)
        held.append(viewer.held_bytes())

    assert max(held) <= MAX_QUEUED_BYTES
    assert viewer.backlog() < 25
    drain(viewer)
    assert viewer.held_bytes() == 0


def test_conflated_values_are_weighed_with_their_text():
    viewer = Viewer(Subscription())

    for at in range(MAX_CONFLATED_BYTES // 50_000 + 1):
        viewer.offer([Item(point(f"d{at}", note="x" * 50_000), {})], 0.0)

    assert viewer.is_given_up


def test_all_together_are_bounded_and_who_holds_most_goes_first(monkeypatch):
    monkeypatch.setattr(hub_module, "MAX_HELD_BYTES", 100_000)
    monkeypatch.setattr(hub_module, "HELD_LOOK_S", -1.0)
    hub = Hub()
    greedy, modest = joined(hub), joined(hub, devices=["a"])

    for at in range(40):
        hub.publish(message(point("a" if at == 0 else "b", second=at, note="x" * 3_000)))

    assert greedy.is_given_up
    assert not modest.is_given_up
    assert modest.backlog() == 1


@pytest.mark.parametrize(
    "bad", [b"", b"{", b"[]", b'{"points":[1]}', b'{"points":[{}]}', b'{"points":7}', b"\xff", b"null"]
)
def test_message_that_does_not_parse_is_counted_and_survived(bad):
    before = hub_module.BAD._value.get()
    hub = Hub()
    viewer = joined(hub)

    hub.publish(bad)
    hub.publish(message(point()))

    assert hub_module.BAD._value.get() == before + 1
    assert drain(viewer) == [[point()]]


def test_exact_integers_pass_unchanged():
    hub = Hub()
    viewer = joined(hub, fields=["count"])

    hub.publish(message(point(count=2**64 - 1, other=1)))

    assert b"18446744073709551615" in viewer.take_frame(0.0)


names = st.sampled_from(["a", "b", "c"])
offers = st.lists(st.tuples(names, st.integers(0, 59), st.integers(-5, 5)), max_size=60)


@settings(deadline=None)  # the machine may be busy
@given(offers)
def test_newest_values_survive_any_backlog(offered):
    viewer = Viewer(Subscription())
    viewer._newest = {("z", "m", ()): {"z": ("2026", 1)}}  # behind from the start
    expected = {}
    for device, second, value in offered:
        if device not in expected or expected[device][0] <= second:
            expected[device] = (second, value)

    viewer.offer([Item(point(device, second, temp=value), {}) for device, second, value in offered], 0.0)

    sent = {p["device"]: p["fields"]["temp"] for frame in drain(viewer) for p in frame if p["device"] != "z"}
    assert sent == {device: value for device, (_, value) in expected.items()}


def feed_message(*points, **more) -> bytes:
    return orjson.dumps({"points": points} | more)


def test_delay_is_counted_once_the_frame_is_out() -> None:
    hub, viewer = Hub(), Viewer(Subscription())
    hub.join(viewer)
    hub.publish(feed_message(point(), oldest={"test-delay/mqtt": 2_000_000_000}))
    hub.publish(feed_message(point(), oldest={"test-delay/mqtt": 1_000_000_000, "test-delay/http": 1_990_000_000}))

    viewer.take_frame(0.0)
    assert not [kind for kind in SENT.recent() if kind.startswith("test-delay/")]
    viewer.note_sent(2_000_000_000)
    viewer.note_sent(9_000_000_000)

    found = SENT.recent()
    assert found["test-delay/mqtt"] == (1, 1.0, 1.0, 1.0)
    assert found["test-delay/http"] == (1, 0.01, 0.01, 0.01)
    hub.leave(viewer)


def test_delays_to_the_store_are_those_the_writer_told_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    assert hub.delays() == {}

    hub.publish(feed_message(delays={"json/mqtt": {"readings": 7, "p50": 0.01, "p95": 0.02, "p99": 0.03}}))
    hub.publish(feed_message(delays=["rubbish"]))
    hub.publish(feed_message(delays={"json/mqtt": {"p50": "x"}}))

    assert hub.delays() == {"json/mqtt": {"p50": 0.01, "p95": 0.02, "p99": 0.03}}
    monkeypatch.setattr("dashboard_api.hub.DELAYS_FRESH_S", 0.0)
    assert hub.delays() == {}


def test_viewers_that_name_too_many_devices_are_given_up():
    hub, names = Hub(), [f"device-{number}" for number in range(10_000)]
    viewers = [Viewer(Subscription(devices=names)) for _ in range(30)]

    for viewer in viewers:
        hub.join(viewer)
    wait_until(lambda: hub.publish(b'{"points":[]}') or any(viewer.is_given_up for viewer in viewers), 5)

    assert sum(viewer.held_bytes() for viewer in viewers) <= MAX_HELD_BYTES
    assert sum(not viewer.is_given_up for viewer in viewers) > 20
