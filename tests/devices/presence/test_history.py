from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from devices.presence import history
from devices.presence.history import DAMP_NS, Event, Fold, Gap
from devices.presence.state import Evidence, Mark, judge
from tests.support.waiting import wait_until
from wire.clock import NS_PER_S

T0 = 1_800_000_000 * NS_PER_S
MOVES = {"connected": True, "disconnected": False}


def run(*steps: tuple[str, float], skew_s: float = 0.0) -> list[Event]:
    """Apply evidence at seconds; give the events as the journal would hold them."""
    mark, kept = Mark(), dict[int, Event]()
    for kind, at_s in steps:
        now_ns = T0 + int(at_s * NS_PER_S)
        new = judge(mark, Evidence(kind, "d1", now_ns))
        mark, news = history.note(mark, new, now_ns + int(skew_s * NS_PER_S))
        if isinstance(news, Event):
            assert news.time_ns not in kept
            kept[news.time_ns] = news
        elif isinstance(news, Fold):
            del kept[news.gone_ns]
            into = kept[news.into_ns]
            kept[news.into_ns] = Event(
                into.time_ns, into.state, into.reason, into.flaps + 1, into.lost_ns + news.lost_ns
            )
    return list(kept.values())


def test_changes_become_events_with_their_reason() -> None:
    events = run(("connected", 0), ("disconnected", 60), ("seen", 100))

    assert [(event.state, event.reason) for event in events] == [
        ("online", "connected"), ("offline", "disconnected"), ("online", "data"),
    ]  # fmt: skip


def test_flapping_is_counted_not_listed() -> None:
    steps = [("connected", 0)]
    for turn in range(1, 50):
        steps += [("disconnected", 30 * turn), ("connected", 30 * turn + 2)]

    events = run(*steps)

    assert [(event.state, event.flaps, event.lost_ns) for event in events] == [("online", 49, 98 * NS_PER_S)]


def test_long_absence_is_an_event() -> None:
    assert len(run(("connected", 0), ("disconnected", 60), ("connected", 60 + DAMP_NS / NS_PER_S))) == 3


@given(st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.floats(-50, 50)), max_size=20))
def test_events_alternate_and_never_go_back_whatever_the_clock(steps) -> None:
    events = run(*steps)

    assert all(one.time_ns < other.time_ns for one, other in pairwise(events))
    assert all(one.state != other.state for one, other in pairwise(events))
    heard = [kind for kind, _ in steps]
    if events and heard:
        assert events[-1].state == ("online" if MOVES[heard[-1]] else "offline")


def test_availability_counts_what_is_known() -> None:
    hour = 3_600 * NS_PER_S
    on, off = Event(T0, "online", "connected"), Event(T0 + hour, "offline", "disconnected")

    assert history.availability(None, [], T0, T0 + hour) is None
    assert history.availability(None, [on, off], T0 - hour, T0 + 2 * hour) == 50.0
    assert history.availability(on, [off], T0 + hour // 2, T0 + 2 * hour) == 33.333
    flapped = Event(T0, "online", "connected", 3, hour // 4)
    assert history.availability(flapped, [], T0, T0 + hour) == 75.0
    assert history.availability(None, [Event(T0, "stale", "silent")], T0, T0 + hour) == 0.0


def test_gaps_of_the_platform_count_neither_way() -> None:
    hour = 3_600 * NS_PER_S
    on, off = Event(T0, "online", "connected"), Event(T0 + 2 * hour, "offline", "disconnected")

    def share(*gaps: tuple[float, float]) -> float | None:
        made = [Gap(T0 + int(start * hour), T0 + int(end * hour)) for start, end in gaps]
        return history.availability(None, [on, off], T0, T0 + 4 * hour, made)

    assert share() == 50.0
    assert share((2, 4)) == 100.0
    assert share((0, 2)) == 0.0
    assert share((1, 3)) == 50.0
    assert share((1.5, 3), (2, 5)) == 100.0  # they overlap, and reach beyond
    assert share((-1, 9)) is None


def presence(service, device: str = "d1", query: str = ""):
    return service.admin("GET", f"/v1/devices/{device}/presence{query}").json


def test_device_page_of_history(connected_service, dial) -> None:
    secret = connected_service.register("d1")
    assert presence(connected_service)["state"] == "never"
    assert connected_service.admin("GET", "/v1/devices/d1").json["presence"] == "never"

    device = dial("d1", secret)
    wait_until(lambda: presence(connected_service)["state"] == "online")
    device.close()
    wait_until(lambda: presence(connected_service)["state"] == "offline")

    shown = presence(connected_service)
    assert [event["state"] for event in shown["events"]] == ["online", "offline"]
    assert [event["reason"] for event in shown["events"]] == ["connected", "disconnected"]
    assert 0 <= shown["availability"]["24h"] <= 100
    first = presence(connected_service, query="?limit=1")
    rest = presence(connected_service, query=f"?limit=1&cursor={first['next']}")
    assert first["events"] + rest["events"] == shown["events"]
    later = presence(connected_service, query=f"?start={rest['next']}")
    assert (later["before"], [event["state"] for event in later["events"]]) == ("online", ["offline"])


def test_takeover_and_quick_returns_leave_one_event(connected_service, dial) -> None:
    secret = connected_service.register("d1")
    first = dial("d1", secret)
    wait_until(lambda: presence(connected_service)["state"] == "online")
    first.client.reconnect_delay_set(60, 60)

    second = dial("d1", secret)
    wait_until(lambda: second.is_connected() and not first.is_connected())
    second.close()
    wait_until(lambda: not connected_service.is_online("d1"))
    dial("d1", secret)
    wait_until(lambda: connected_service.is_online("d1"))

    shown = presence(connected_service)
    assert [(event["state"], event["flaps"] >= 1) for event in shown["events"]] == [("online", True)]


def test_connected_device_that_says_too_little_is_stale(connected_service, dial) -> None:
    connected_service.admin("PUT", "/v1/device-types/quick", {"expected_interval_s": 0.1})
    dial("d1", connected_service.register("d1", type="quick"))

    wait_until(lambda: presence(connected_service)["state"] == "stale")
    assert connected_service.is_online("d1")
    wait_until(lambda: connected_service.admin("GET", "/v1/devices/d1").json["presence"] == "stale")

    last_ns = int(presence(connected_service, query="?limit=1")["next"])
    connected_service.internal("POST", "/internal/seen", {"mqtt": {"d1": last_ns + 2**40}})
    wait_until(lambda: "data" in [event["reason"] for event in presence(connected_service)["events"]])
