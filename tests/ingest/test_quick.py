"""The quick way takes what is ordinary, and whatever it takes the exact way takes alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingest import quick
from ingest.field_types import FieldTypes
from ingest.gate import Known
from ingest.intake import Intake
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.validation import TypeChecker
from tests.ingest.intake_support import case_folders, load_case
from wire.devices import DeviceType

NOW = 1_772_700_000_000_000_000
DEVICE = Known("d1", "default", True, None, False, (), 0.0)
FIELDS = {
    "t": {"type": "float", "min": -40, "max": 85},
    "n": {"type": "int", "min": 0},
    "on": {"type": "bool"},
    "s": {"type": "string"},
    "a.b": {"type": "float"},
}
TYPES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "accept": {},
    "drop": {"unknown_fields": "drop"},
    "strict": {"unknown_fields": "quarantine"},
    "limited": {"fields": FIELDS | {"s": {"type": "string", "choices": ["x"]}}, "version_id": 7},
    "required": {"fields": FIELDS | {"t": {"type": "float", "required": True}}},
    "timed": {"time_unit": "ms", "time_key": "n", "time_policy": "exact"},
}
KNOWN = {
    "t": 1.5,
    "n": 2.5,
    "on": True,
    "s": "x",
    "big": 2**60,
    "a": {"b": 1.0},
    "c\\": 1.0,
    "time": 1.0,
    "values": "v",
}
NUMBERS = st.one_of(
    st.integers(-100, 100),
    st.floats(-100, 100),
    st.sampled_from([2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 10**25, 1e16, 2.0**63, 1e300, -0.0, 5.0, 1e-320]),
)
VALUES = st.one_of(
    NUMBERS, st.booleans(), st.none(), st.text(max_size=4), st.lists(NUMBERS, max_size=2), st.just({"b": 2.5}),
    st.just("x" * 20_000),
)  # fmt: skip
TIMES = st.one_of(
    st.integers(1_772_699_000_000, 1_772_700_500_000).flatmap(lambda ms: st.sampled_from([ms, ms * 1000, ms / 1000])),
    st.sampled_from(
        [NOW, NOW - 1, 0, -5, 10**30, None, True, "2026-03-05T08:40:00", "2026-03-05T08:40:00Z", "x", "12"]
    ),
)
NAMES = st.sampled_from([*KNOWN, "a.b", "new", "c\\.d", "é", ""])
IDENTITY = {
    "boot_id": st.one_of(st.sampled_from(["b1", 7, True, 1.0, None, "", "é", "x" * 65, "a\x01"]), st.text(max_size=3)),
    "seq": st.sampled_from([0, 1, 2**63 - 1, 2**63, -1, 1.0, True, "1", None]),
}
PLAIN = st.tuples(
    st.dictionaries(NAMES, VALUES, max_size=5), st.fixed_dictionaries({}, optional=IDENTITY | {"ts": TIMES, "time": TIMES})
).map(lambda parts: parts[0] | parts[1])  # fmt: skip
ENVELOPES = st.fixed_dictionaries(
    {"values": st.one_of(st.dictionaries(NAMES, VALUES, max_size=5), VALUES)},
    optional=IDENTITY | {"ts": TIMES, "more": VALUES},
)
ORDINARY = st.fixed_dictionaries(
    {"ts": st.integers(NOW // 1000 - 10**9, NOW // 1000), "boot_id": st.just("b1"), "seq": st.integers(0, 100)},
    optional={"t": st.floats(-40, 85), "on": st.booleans(), "s": st.text("ab", max_size=3)},
)
FITTING = {"t": 1.5, "n": 5.0, "on": False, "s": "y", "c\\": 2, "time": 3}
NEARLY = st.tuples(  # one member away from what the quick way takes
    st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in FITTING.items()}), NAMES, VALUES, TIMES,
).map(lambda parts: {"values": parts[0] | {parts[1]: parts[2]}, "ts": parts[3], "boot_id": "b1"})  # fmt: skip
NUMERIC = st.fixed_dictionaries(  # what the quickest way takes, or nearly
    {"ts": st.one_of(st.integers(NOW // 1000 - 10**9, NOW // 1000), TIMES)},
    optional=IDENTITY
    | {"values": st.dictionaries(st.sampled_from(["t", "n", "time", "a.b", "new"]), NUMBERS, max_size=4)},
)
OBJECTS = st.one_of(PLAIN, NUMERIC, ENVELOPES, ORDINARY, NEARLY, NEARLY.map(lambda each: each["values"]))


@pytest.fixture(scope="module")
def field_types(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FieldTypes]:
    types = FieldTypes(tmp_path_factory.mktemp("types") / "t.db")
    learn(types, json.dumps(KNOWN).encode(), None)
    yield types
    types.close()


def learn(types: FieldTypes, content: bytes, checker: TypeChecker | None) -> None:
    for _ in range(2):  # what is new is read back from the file once it is saved
        Intake(types).sort(message(content), checker)
        types.save()


def message(content: bytes, protocol: str = "json", **members: Any) -> Message:
    return Message(DEVICE, PROTOCOLS[protocol], content, NOW, **members)


def checker(name: str) -> TypeChecker | None:
    members = TYPES[name]
    return None if members is None else TypeChecker(DeviceType(**{"name": name, "fields": FIELDS} | members))


def check(given: Message, types: FieldTypes, by: TypeChecker | None) -> bool:
    """Compare the two ways; tell whether the quick one took the message."""
    readings = quick.read(given, by, types)
    if readings is None:
        return False

    found = Intake(types).sort(given, by)

    assert found.items == []
    assert [encoded(each) for each in readings] == [encoded(each) for each in found.readings]
    return True


def encoded(reading: Any) -> bytes:
    """Give bytes that differ for 1, 1.0 and True, and for 0.0 and -0.0, but not for the order of fields."""
    return msgspec.msgpack.encode(reading, order="deterministic")


ANY_TYPE = st.sampled_from([*TYPES])
SETTINGS = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(OBJECTS, ANY_TYPE, st.booleans(), st.sampled_from([0, 7]))
@example({"values": {"t": 1}, "ts": NOW, "boot_id": "b", "seq": 2**53}, "none", False, 7)
@example({"a.b": 1.0}, "none", False, 0)
@example({"n": 3.0, "t": 86}, "accept", False, 0)
def test_objects_are_taken_alike(field_types, value, type_name, is_again, mid) -> None:
    given = message(json.dumps(value).encode(), transport="mqtt", source="a/b", mid=mid, is_redelivered=is_again)

    check(given, field_types, checker(type_name))


@SETTINGS
@given(st.lists(OBJECTS, max_size=4), ANY_TYPE, st.sampled_from(["json", "ndjson", "thingsboard"]), st.booleans())
def test_arrays_and_lines_are_taken_alike(field_types, values, type_name, protocol, is_array) -> None:
    parts = [json.dumps(value) for value in values]
    content = f"[{','.join(parts)}]" if is_array else "\n".join(parts)

    check(message(content.encode(), protocol), field_types, checker(type_name))


LINE = b'{"ts":1772700000000,"boot_id":"b","seq":1,"values":{"t":1.5}}'


@SETTINGS
@given(st.lists(st.sampled_from([LINE, b"", b" ", b"{", b"}", b'{"ts":', LINE + b"\r", LINE * 2, *LINE.partition(b"{")]), max_size=5),
       st.sampled_from([b"\n", b"\n\n", b" \n", b"}\n{", b"\r\n"]))  # fmt: skip
@example([b'{"ts":1772700000000,"values":', b'{"t":1}}' + LINE], b"\n")
@example([b'{"ts":1772700000000,"values":{"t":1', b'"t":1}}' + LINE], b"}\n{")
@example([LINE[:-1], LINE[1:]], b"}\n{")
def test_lines_that_are_not_one_object_each_are_taken_alike(field_types, lines, end) -> None:
    check(message(end.join(lines), "ndjson"), field_types, None)


@pytest.mark.parametrize("type_name", [*TYPES])
@pytest.mark.parametrize(
    "members",
    [
        '"values":{"t":18446744073709551616}', '"values":{"t":1e19}', '"values":{"t":-9223372036854775809}',
        '"values":{"t":9007199254740993}', '"values":{"t":-0}', '"values":{"t":-0.0}', '"values":{}', '"values":{"t":86}',
        '"values":{"t":1},"boot_id":"a\\u0001"', '"values":{"t":1},"seq":-1', '"values":{"t":1},"boot_id":""',
        '"values":{"t":1},"boot_id":"a\\u0001","seq":1', '"values":{"t":1},"boot_id":9223372036854775808,"seq":1',
        '"values":{"t":1},"x":1', '"values":{"t":1},"boot_id":"b"', '"values":{"t":1,"a.b":1}', '"values":{"t":1},"seq":9223372036854775808,"boot_id":"b"',
    ],
)  # fmt: skip
def test_envelopes_are_taken_alike(field_types, members: str, type_name: str) -> None:
    line = f'{{"ts":{NOW},{members}}}'

    check(message(line.encode()), field_types, checker(type_name))
    check(message(f"{line}\n{line}".encode(), "ndjson"), field_types, checker(type_name))


@pytest.mark.parametrize("type_name", [*TYPES])
@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("shift_s", [-(10**9), -100_000, -1, 0, 1, 599, 600, 601, 10_000, 10**8])
def test_times_of_envelopes_are_taken_alike(field_types, shift_s: int, unit: int, type_name: str) -> None:
    lines = [f'{{"ts":{ns // unit},"values":{{"t":1}}}}' for ns in (NOW, NOW + shift_s * 10**9)]

    check(message("\n".join(lines).encode(), "ndjson"), field_types, checker(type_name))
    check(message(lines[1].encode()), field_types, checker(type_name))


@SETTINGS
@given(ORDINARY, st.integers(0, 80), st.binary(max_size=3), st.integers(0, 2), ANY_TYPE)
def test_damaged_bytes_are_taken_alike(field_types, value, place, noise, cut, type_name) -> None:
    content = json.dumps(value).encode()

    check(message(content[:place] + noise + content[place + cut :]), field_types, checker(type_name))


@pytest.mark.parametrize(
    "content",
    [
        b'{"t":1,"t":"x"}', b'{"t":"x","t":1}', b'{"t":NaN}', b'{"t":1e400}', b"\xef\xbb\xbf" + b'{"t":1}', b'{"t":1}\0',
        b'{"t":1}{"t":2}', b'{"t":1}\n{"t":2}\n', b'{"t":1}\n\n{"t":2}', b'{"s":"\\ud800"}', b'{"s":"\xff"}', b"[]", b"5",
        b"", b"null", b'"t"', b"[" * 2_000, b'{"a":' * 17 + b"1" + b"}" * 17, b'{"t":18446744073709551616}',
        b'{"values":{"t":1},"ts":1772700000000,"ts":1}', b'[{"t":1},5]', b'{"t":' + b"1" * 5_000 + b"}",
        b'{"t":1,"ts":"2026-03-05T08:40:00"}', b'{"t":9007199254740993}', b'{"t":1,"n":-9007199254740993}',
        b'{"on":1}', b'{"s":"' + "é".encode() * 40_000 + b'"}', b'{"s":"' + b"x" * 70_000 + b'"}',
        b'{"values":{"t":1},"seq":5,"boot_id":"b"}', b'{"t":1,"seq":5}', b'{"t":1,"t.x":2}', b'{"":1,"t":1}',
        b'{"t":1' + b" " * 300_000 + b"}", b'{"s":"' + b"x" * 300_000 + b'"}', b'{"t":1}\n{"s":"' + b"x" * 300_000 + b'"}', b'{"t":1}\n' * 20_001,
        b"[" + b",".join([b'{"t":1}'] * 20_001) + b"]", json.dumps(dict.fromkeys(map(str, range(300)), 1)).encode(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", ["json", "ndjson"])
def test_odd_messages_are_taken_alike(tmp_path: Path, content: bytes, protocol: str) -> None:
    types = FieldTypes(tmp_path / "t.db")
    for known in (KNOWN, dict.fromkeys(map(str, range(150)), 1), dict.fromkeys(map(str, range(150, 300)), 1)):
        learn(types, json.dumps(known).encode(), None)

    check(message(content, protocol), types, None)
    check(message(content, protocol, mid=3), types, None)
    check(message(content, protocol, is_retained=True, mid=1), types, None)
    types.close()


@pytest.mark.parametrize(
    "content", [b'{"t":86}', b'{"t":-40.5}', b'{"n":-1}', b'{"a.b":1}', b'{"a":{"b":1}}', b'{"n":5.0}']
)
@pytest.mark.parametrize("type_name", [*TYPES])
def test_rules_of_a_type_are_taken_alike(field_types, content: bytes, type_name: str) -> None:
    check(message(content), field_types, checker(type_name))


@pytest.mark.parametrize("folder", case_folders("json"), ids=lambda folder: folder.name)
def test_cases_are_taken_alike(tmp_path: Path, folder: Path) -> None:
    content, _, expected = load_case(folder)
    by = TypeChecker(DeviceType(name="case", **spec)) if (spec := expected.get("context")) else None
    types = FieldTypes(tmp_path / "t.db")
    learn(types, content, by)

    for protocol in ("json", "ndjson"):
        check(message(content, protocol), types, by)
    types.close()


@pytest.mark.parametrize(
    ("content", "type_name", "protocol"),
    [
        ('{"ts":1772700000000,"boot_id":"b","seq":1,"values":{"t":1,"on":true}}', "none", "json"),
        ('{"ts":1772700000000,"boot_id":"b","seq":1,"values":{"t":1,"n":-71}}', "none", "json"),
        ('{"ts":1772700000000000,"values":{"t":1}}\n{"ts":1772699999000000,"values":{"n":2}}\n', "none", "ndjson"),
        ('{"ts":1772700000000,"boot_id":7,"seq":1,"values":{"t":20}}', "required", "json"),
        ('{"t":20,"n":3,"s":"x"}', "strict", "json"),
        ('{"t":20.5,"big":7}', "accept", "json"),
        ('[{"t":1},{"t":2,"time":"2026-03-05T08:40:00Z"}]', "none", "json"),
        ('{"t":1,"ts":1772700000.25}\n{"t":2}\n', "none", "ndjson"),
    ],
)
def test_ordinary_messages_go_the_quick_way(field_types, content, type_name, protocol) -> None:
    assert check(message(content.encode(), protocol, mid=9), field_types, checker(type_name))
