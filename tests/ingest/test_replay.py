"""Replay: only what was refused is new, and doing it twice changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import ingest.replay as replay_module
from ingest.framing import Batch, Delivery
from ingest.quarantine import Item, RawMessage, Refused, Selection
from ingest.readings import Reading
from ingest.replay import STORE, STORE_REFUSED, decode_reading, encode_reading
from tests.ingest.intake_support import World
from wire import clock
from wire.errors import PeerUnavailable, SpoolFull
from wire.points import SERVER_TIME

T = 1_772_700_000 * clock.NS_PER_S


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.registry.put_type(name="g", fields={"t": {"max": 10}})
    made.registry.add("d1", type="g")
    made.gate.poll()
    yield made
    made.close()


def send(world: World, payload: bytes) -> None:
    world.service.accept_batch(Batch("b", [Delivery("d1", "devices/d1/telemetry", payload, T, 7)]))


def widen(world: World) -> None:
    world.registry.put_type(name="g", version=2, fields={"t": {"max": 30}})
    world.gate.poll()
    world.commit.readings.clear()


def replay(world: World):
    return world.replayer.replay_selection(Selection())


def test_field_is_replayed_alone_at_its_own_time(world) -> None:
    send(world, b'{"boot_id":"b","seq":4,"t":20,"u":1}')
    widen(world)

    outcome = replay(world)

    [reading] = world.commit.readings
    assert outcome.replayed == 1
    assert (reading.fields, reading.time_ns) == ({"t": 20.0}, T)
    assert (reading.boot_id, reading.seq) == (None, None)


def test_moved_devices_data_is_replayed_for_the_tenant_of_its_time(world) -> None:
    send(world, b'{"boot_id":"b","seq":4,"t":20}')
    widen(world)
    world.registry.put(world.registry.devices["d1"].model_copy(update={"tenant": "acme"}))
    world.gate.poll()
    world.commit.readings.clear()

    replay(world)

    assert world.gate.find(["d1"]).known["d1"].tenant == "acme"
    assert {reading.tenant for reading in world.commit.readings} == {"default"}


def test_whole_record_is_replayed_with_its_key(world) -> None:
    send(world, b'{"boot_id":"b","seq":4,"t":20}')
    widen(world)
    replay(world)

    [reading] = world.commit.readings
    assert (reading.boot_id, reading.seq, reading.fields) == ("b", 4, {"t": 20.0})


def test_neighbours_are_not_replayed(world) -> None:
    send(world, b'[{"t":1},{"t":20},{"t":2}]')
    widen(world)
    replay(world)

    [reading] = world.commit.readings
    assert (reading.fields, reading.time_ns, reading.flags) == ({"t": 20.0}, T + 1, SERVER_TIME)


def test_second_replay_changes_nothing(world) -> None:
    send(world, b'{"t":20}')
    ids = [entry.id for entry in world.quarantine.page(Selection())]
    widen(world)
    replay(world)

    assert world.replayer.replay_ids(ids, tenant="default") == (0, [], False, 1)
    assert len(world.commit.readings) == 1


def test_what_is_still_bad_goes_on_waiting(world) -> None:
    send(world, b'{"t":20}')

    outcome = replay(world)

    assert (outcome.replayed, [each.code for each in outcome.failed]) == (0, ["out_of_range"])
    assert world.quarantine.totals()["quarantined"] == 1


def test_unknown_id_is_told(world) -> None:
    assert [each.code for each in world.replayer.replay_ids([4711], tenant="default").failed] == ["not_found"]


def test_device_registered_later_gets_its_messages(world) -> None:
    delivery = Delivery("d2", "devices/d2/telemetry", b'[{"a":1},{"a":2},5]', T, 7)
    world.service.accept_batch(Batch("b", [delivery]))
    world.registry.add("d2")
    world.gate.poll()

    assert replay(world).replayed == 1
    assert [reading.fields["a"] for reading in world.commit.readings] == [1, 2]
    assert [entry.code for entry in world.quarantine.page(Selection())] == ["bad_structure"]


def test_cut_message_cannot_be_replayed(world) -> None:
    send(world, b'{"a":"' + b"x" * 5_000)

    assert [each.code for each in replay(world).failed] == ["too_large"]


def test_reading_the_store_refused_is_kept_as_it_was(world) -> None:
    reading = Reading("d1", "telemetry", T, T, {"n": 2**64 - 1, "ok": True, "x": 1.0}, boot_id="b", seq=1)
    message = RawMessage("d1", "json", STORE, encode_reading(reading), T, STORE_REFUSED)
    world.quarantine.add([Refused(message, [Item(None, "type_conflict", "int is not bool")])])

    assert replay(world).replayed == 1
    assert world.commit.readings == [reading]


def test_reading_kept_by_an_older_release_is_read(world) -> None:
    reading = Reading("d1", "telemetry", T, T, {"x": 1.0}, boot_id="b", seq=1)
    older = json.loads(encode_reading(reading))
    del older["judged_by"]

    assert decode_reading(json.dumps(older).encode()) == reading


def test_device_cannot_pass_for_the_store(world) -> None:
    forged = encode_reading(Reading("d2", "telemetry", T, T, {"x": 1.0}))
    message = RawMessage("d1", "json", "http", forged, T, STORE_REFUSED)
    world.quarantine.add([Refused(message, [Item(None, "missing_field", "no t")])])

    replay(world)

    assert {reading.device for reading in world.commit.readings} == {"d1"}


def test_full_spool_leaves_all_waiting(world) -> None:
    send(world, b'{"t":20}')
    widen(world)
    world.commit.error = SpoolFull("full")

    with pytest.raises(SpoolFull):
        replay(world)
    assert world.quarantine.totals()["quarantined"] == 1


def test_registry_away_leaves_all_waiting(world) -> None:
    send(world, b"{")
    world.registry.oldest = world.registry.revision + 1
    world.gate.poll()  # it forgets what it knew
    world.registry.is_away = True

    with pytest.raises(PeerUnavailable):
        replay(world)


def test_message_of_many_entries_is_sorted_once(world, monkeypatch) -> None:
    send(world, b"[" + b",".join([b'{"t":20}'] * 3_000) + b"]")
    widen(world)
    sorted_ = []
    sort = world.replayer._sort
    monkeypatch.setattr(world.replayer, "_sort", lambda *given: sorted_.append(1) or sort(*given))

    assert replay(world).replayed == 3_000
    assert len(sorted_) == 1


def test_request_ends_in_time_and_the_next_goes_on_behind_it(world, monkeypatch) -> None:
    send(world, b'{"t":20}')
    send(world, b'{"t":40}')
    widen(world)
    monkeypatch.setattr(replay_module, "TIME_S", -1.0)

    first, second = replay(world), replay(world)

    assert (first.replayed, [each.code for each in first.failed], first.more) == (0, ["out_of_range"], True)
    assert second.replayed == 1


def test_entry_discarded_in_the_meantime_is_passed_over(world, monkeypatch) -> None:
    send(world, b'{"t":20}')
    widen(world)
    find = world.gate.find
    quarantine = world.quarantine

    def find_slowly(devices):
        quarantine.discard([entry.id for entry in quarantine.page(Selection())])
        return find(devices)

    monkeypatch.setattr(world.gate, "find", find_slowly)

    assert replay(world) == (0, [], False, 0)
