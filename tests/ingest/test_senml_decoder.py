"""SenML: whose a name is, CBOR labels, and what must not harm. The mapping itself is in tests/cases and the fixtures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.framing import Batch, Delivery
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.protocols.base import MAX_RECORDS, Context, Decoded
from ingest.protocols.senml.decoder import CBOR_LABELS
from ingest.quarantine import Selection
from tests.ingest.intake_support import World
from wire import clock
from wire.devices import DeviceIdentity

NOW = 1_772_700_000 * clock.NS_PER_S
OW = "urn:dev:ow:aa"
LABELS = {name: label for label, name in CBOR_LABELS.items()}
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False, width=32)
packs = st.lists(
    st.fixed_dictionaries(
        {"n": st.sampled_from(["a", "b:c", "d/e.f"])},
        optional={"v": numbers, "bv": numbers, "t": st.integers(-(10**6), 10**6), "bt": st.integers(10**9, 2 * 10**9), "s": numbers, "u": st.just("Cel")},
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


def decode(pack: Any, *names: str) -> Decoded:
    return PROTOCOLS["senml"].decode(json.dumps(pack).encode(), Context(NOW, names={f"senml:{name}" for name in names}))


def placed(name: str, *names: str, unit: str | None = None) -> tuple[str | None, str]:
    entry = {"n": name, "v": 1} | ({"u": unit} if unit is not None else {})
    (record,) = decode([entry], *names).records
    return record.device, next(iter(record.fields))


@pytest.mark.parametrize(
    ("name", "known", "device", "field"),
    [
        ("temp", [], None, "temp"),
        (f"{OW}:temp", [], f"senml:{OW}", "temp"),
        (f"{OW}:temp", [OW], f"senml:{OW}", "temp"),
        (f"{OW}/in.temp", [OW], f"senml:{OW}", "in.temp"),
        (f"{OW}/in.temp", [OW, f"{OW}/in"], f"senml:{OW}/in", "temp"),
        (f"{OW}b:temp", [OW], f"senml:{OW}b", "temp"),
        (OW, [OW], f"senml:{OW}", "value"),
        (f"{OW}:", [OW], f"senml:{OW}", "value"),
        (f"{OW}:", [], f"senml:{OW}", "value"),
        ("2001:db8::2/temp", ["2001:db8::2"], "senml:2001:db8::2", "temp"),
        (OW, ["urn"], "senml:urn", "dev:ow:aa"),
    ],
)
def test_longest_known_beginning_of_a_name_is_the_device(name, known, device, field) -> None:
    assert placed(name, *known) == (device, field)


def test_unit_names_the_field_where_the_name_leaves_none() -> None:
    assert placed(OW, OW, unit="%RH") == (f"senml:{OW}", "%RH")
    assert placed(f"{OW}:t", OW, unit="Cel") == (f"senml:{OW}", "t")


@given(pack=packs)
def test_cbor_says_the_same_as_json(pack: list[dict[str, Any]]) -> None:
    said = cbor2.dumps([{LABELS[label]: value for label, value in entry.items()} for entry in pack])

    assert PROTOCOLS["senml-cbor"].decode(said, Context(NOW)) == decode(pack)
    assert PROTOCOLS["senml-cbor"].decode(cbor2.dumps(pack), Context(NOW)) == decode(pack)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (cbor2.dumps([{0: "a", 2: 1}]) + b"\0", "trailing_data"),
        (b"\xd8\x1c\x81\xd8\x1d\x00", "bad_value"),
        (cbor2.dumps({0: "a", 2: 1}), "bad_structure"),
        (cbor2.dumps([1]), "bad_structure"),
        (cbor2.dumps([]), "no_values"),
        (cbor2.dumps([{-1: 11, 0: "a", 2: 1}]), "version"),
        (b"", "no_values"),
        (b"\x9f", "bad_syntax"),
    ],
)
def test_pack_of_cbor_that_cannot_be_read(content, code) -> None:
    decoded = PROTOCOLS["senml-cbor"].decode(content, Context(NOW))

    assert (decoded.is_unreadable, [fault.code for fault in decoded.faults]) == (True, [code])


def test_values_of_cbor() -> None:
    pack = [
        {-3: NOW // clock.NS_PER_S, 0: "f", 2: cbor2.CBORTag(4, [-2, 2315])},
        {0: "d", 8: b"hi \n"},
        {0: "h", 2: 1.5},
    ]
    decoded = PROTOCOLS["senml-cbor"].decode(cbor2.dumps(pack, canonical=True), Context(NOW))

    assert [record.fields for record in decoded.records] == [{"f": 23.15}, {"d": "aGkgCg"}, {"h": 1.5}]


@pytest.mark.parametrize(
    "entry",
    [
        {"v": 10**30, "bv": 0.5}, {"v": 1e308, "bv": 1e308}, {"t": 1e308, "v": 1}, {"t": -1e308, "bt": 1e308, "v": 1},
        {"v": 0.1, "bv": 1e-320}, {"v": 5e-324, "bv": -5e-324},
    ],
)  # fmt: skip
def test_odd_numbers_end_in_an_answer(entry) -> None:
    decoded = decode([{"n": "a"} | entry])

    assert len(decoded.records) + len(decoded.faults) == 1
    assert all(math.isfinite(float(value)) for record in decoded.records for value in record.fields.values())


@pytest.mark.parametrize(
    "text", ["1e999999", "-1e999999", "NaN", "Infinity", "1e-999999", "9" * 5000, "1." + "9" * 5000]
)
@pytest.mark.parametrize("label", ["v", "bv", "t", "bt", "s", "bs"])
def test_monstrous_numbers_end_in_an_answer(label, text) -> None:
    content = b'[{"n":"a","v":1,"s":1,"bv":0.5,"bs":0.5,"%s":%s}]' % (label.encode(), text.encode())

    decoded = PROTOCOLS["senml"].decode(content, Context(NOW))

    assert len(decoded.records) + len(decoded.faults) == 1, decoded


def test_pack_of_too_many_records() -> None:
    assert decode([{"n": "a", "v": 1}] * (MAX_RECORDS + 1)).faults[0].code == "too_large"


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path, PROTOCOLS)
    made.registry.add("g1", gateway=True)
    made.registry.add("d1")
    made.gate.poll()
    yield made
    made.close()


def send(
    world: World, pack: Any, sender: str = "g1", received_ns: int = NOW, *, dup: bool = False
) -> list[tuple[Any, ...]]:
    delivery = Delivery(sender, f"devices/{sender}/telemetry/senml", json.dumps(pack).encode(), received_ns, 7, dup)
    return [(each.end, each.code, each.record) for each in world.service.accept_batch(Batch("b", [delivery])).endings]


def kept(world: World) -> list[tuple[str, dict[str, Any]]]:
    return [(reading.device, reading.fields) for reading in world.commit.readings]


def test_values_of_one_time_are_one_reading(world) -> None:
    send(
        world,
        [
            {"bn": f"{OW}:", "n": "a", "v": 1},
            {"n": "b", "v": 2},
            {"bn": "", "n": "own", "v": 3},
            {"bn": f"{OW}:", "n": "c", "v": 4, "t": -5},
        ],
    )

    assert sorted(kept(world), key=str) == [
        ("g1", {"own": 3.0}),
        ("urn-dev-ow-aa", {"a": 1.0, "b": 2.0}),
        ("urn-dev-ow-aa", {"c": 4.0}),
    ]


def test_required_fields_may_come_in_records_of_their_own(world) -> None:
    spec = {"type": "float", "required": True}
    world.registry.put_type(name="both", fields={"a": spec, "b": spec})
    world.registry.add("d1", type="both")

    assert send(world, [{"n": "a", "v": 1}, {"n": "b", "v": 2}], "d1") == []
    assert kept(world) == [("d1", {"a": 1.0, "b": 2.0})]


def test_device_names_itself_by_its_id_or_by_a_name_it_was_given(world) -> None:
    assert send(world, [{"bn": "d1:", "n": "a", "v": 1}], "d1") == []
    assert send(world, [{"bn": f"{OW}:", "n": "a", "v": 1}, {"bn": "", "n": "b", "v": 2}], "d1") == [
        ("quarantined", "identity_mismatch", 0)
    ]
    world.registry.name(f"senml:{OW}", "d1")
    world.gate.poll()
    assert send(world, [{"bn": f"{OW}:", "n": "a", "v": 3}], "d1") == []

    assert kept(world) == [("d1", {"a": 1.0}), ("d1", {"b": 2.0}), ("d1", {"a": 3.0})]


def test_what_waited_of_a_joined_reading_is_stored_once(world) -> None:
    world.registry.name(f"senml:{OW}", "aa", "g1")
    world.registry.put(DeviceIdentity(id="aa", state="held", parent="g1"))
    assert send(world, [{"bn": f"{OW}:", "n": "a", "v": 1}, {"n": "b", "v": 2}]) == [
        ("quarantined", "device_held", 0),
        ("quarantined", "device_held", 1),
    ]
    world.registry.put(DeviceIdentity(id="aa", parent="g1"))
    world.gate.poll()

    assert world.replayer.replay_selection(Selection()).replayed == 2
    assert kept(world) == [("aa", {"a": 1.0, "b": 2.0})]
    assert world.replayer.replay_selection(Selection()).replayed == 0


def test_single_record_of_a_joined_reading_can_be_replayed(world) -> None:
    world.registry.name(f"senml:{OW}", "aa", "g1")
    world.registry.put(DeviceIdentity(id="aa", state="held", parent="g1"))
    send(world, [{"bn": f"{OW}:", "bt": 1, "n": "a", "v": 1}, {"n": "b", "v": 2}])
    world.registry.put(DeviceIdentity(id="aa", parent="g1"))
    world.gate.poll()

    for id_ in (2, 1):
        assert world.replayer.replay_ids([id_], tenant="default").replayed == 1
    assert kept(world) == [("aa", {"b": 2.0}), ("aa", {"a": 1.0})]


def test_field_of_a_later_record_can_be_replayed(world) -> None:
    world.registry.put_type(name="narrow", fields={"b": {"type": "float", "max": 1}})
    world.registry.name(f"senml:{OW}", "aa", "g1")
    world.registry.put(DeviceIdentity(id="aa", parent="g1", type="narrow"))
    assert send(world, [{"bn": f"{OW}:", "n": "a", "v": 1}, {"n": "b", "v": 2}]) == [("quarantined", "out_of_range", 0)]
    world.registry.put(DeviceIdentity(id="aa", parent="g1"))
    world.gate.poll()

    assert world.replayer.replay_selection(Selection()).replayed == 1
    assert kept(world) == [("aa", {"a": 1.0}), ("aa", {"b": 2.0})]


def test_copy_of_a_relative_time_can_be_told(world) -> None:
    for received_ns, dup in ((NOW, False), (NOW + clock.NS_PER_S, True)):
        send(world, [{"n": "a", "v": 1, "t": -5}], "d1", received_ns, dup=dup)

    first, second = world.commit.readings
    assert first.content == second.content != 0


def test_http_answers_by_record(world) -> None:
    known = world.gate.find(["d1"]).known["d1"]
    receipt = world.service.accept(Message(known, PROTOCOLS["senml"], b'[{"n":"a","v":1},{"n":"b"}]', NOW))

    assert (receipt.accepted, [(item.record, item.code) for item in receipt.quarantined]) == (1, [(1, "no_values")])
