"""Values of every data type, as different clients send them."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.protocols.flatten import Refused
from ingest.protocols.parse import Unreadable
from ingest.protocols.sparkplug.messages import MAX_BYTES, Metric, Payload
from ingest.protocols.sparkplug.packed import COMPRESSED, unpack
from ingest.protocols.sparkplug.values import SIGNED, UNSIGNED, read
from tests.ingest.sparkplug.made import DAY_MS, add, payload


def metric(**members: Any) -> Any:
    return Metric(**members)


def refused(datatype: int, **members: Any) -> str:
    with pytest.raises(Refused) as caught:
        read(metric(**members), datatype)
    return caught.value.code


@pytest.mark.parametrize("datatype", SIGNED)
@given(data=st.data())
def test_a_negative_integer_is_the_same_however_wide_it_is_carried(datatype: int, data: st.DataObject) -> None:
    bits = SIGNED[datatype]
    number = data.draw(st.integers(-(1 << bits - 1), (1 << bits - 1) - 1))
    carried = [{"long_value": number % 2**64}]  # sign-extended to 64 bits
    if bits <= 32:
        carried += [{"int_value": number % 2**32}, {"int_value": number % (1 << bits)}]

    assert [read(metric(**each), datatype) for each in carried] == [number] * len(carried)


@pytest.mark.parametrize(
    ("datatype", "carried"), [(1, 300), (1, 2**32 - 129), (2, 2**16), (3, 2**33), (5, 256), (6, 2**16), (7, 2**32)]
)
def test_an_integer_beyond_its_declared_width_is_out_of_range(datatype: int, carried: int) -> None:
    assert refused(datatype, long_value=carried) == "out_of_range"


@pytest.mark.parametrize("datatype", UNSIGNED)
def test_unsigned_integers_keep_their_whole_range(datatype: int) -> None:
    most = (1 << UNSIGNED[datatype]) - 1

    assert read(metric(long_value=most), datatype) == most


def test_a_float_of_32_bits_is_the_double_that_it_is() -> None:
    assert read(metric(float_value=0.1), 9) == struct.unpack("<f", struct.pack("<f", 0.1))[0]


@pytest.mark.parametrize(
    ("datatype", "members", "code"),
    [
        (10, {"double_value": float("nan")}, "nonfinite"),
        (9, {"float_value": float("inf")}, "nonfinite"),
        (10, {"int_value": 1}, "bad_value"),
        (3, {"double_value": 1.0}, "bad_value"),
        (11, {"int_value": 1}, "bad_value"),
        (12, {"bytes_value": b"x"}, "bad_value"),
        (12, {}, "bad_value"),
        (20, {"int_value": 1}, "unsupported"),
        (99, {"int_value": 1}, "unsupported"),
        (13, {"long_value": 2**63}, "out_of_range"),
        (24, {"bytes_value": b"12345"}, "bad_value"),
        (32, {"bytes_value": b"\x09\0\0\0\xff"}, "bad_value"),
        (33, {"bytes_value": b"no end"}, "bad_value"),
        (33, {"bytes_value": b"\xff\0"}, "bad_encoding"),
        (17, {"bytes_value": b"x" * 60_000}, "too_large"),
    ],
)
def test_what_is_not_what_it_is_declared_to_be_is_refused(datatype: int, members: dict[str, Any], code: str) -> None:
    assert refused(datatype, **members) == code


@pytest.mark.parametrize(
    ("datatype", "content", "elements"),
    [
        (22, b"\xff\x01", [-1, 1]),
        (23, struct.pack("<2h", -300, 300), [-300, 300]),
        (29, struct.pack("<Q", 2**64 - 1), [2**64 - 1]),
        (31, struct.pack("<2d", 0.5, -1.5), [0.5, -1.5]),
        (32, b"\x0c\0\0\0\xa0\x10", [True, False, True] + [False] * 8 + [True]),
        (33, "kalt\0läuft\0".encode(), ["kalt", "läuft"]),
        (34, struct.pack("<q", 1_000), ["1970-01-01T00:00:01.000000000Z"]),
        (24, b"", []),
    ],
)
def test_arrays_become_json(datatype: int, content: bytes, elements: list[Any]) -> None:
    assert json.loads(str(read(metric(bytes_value=content), datatype))) == elements


def test_a_value_whose_type_nobody_declared_is_what_it_is_carried_as() -> None:
    carried: list[dict[str, Any]] = [
        {"int_value": 7},
        {"double_value": 0.5},
        {"boolean_value": True},
        {"string_value": "x"},
    ]

    assert [read(metric(**each), 0) for each in carried] == [7, 0.5, True, "x"]


def test_a_text_that_is_not_utf8_is_refused() -> None:
    content = payload(x="ab").SerializeToString().replace(b"ab", b"\xff\xfe")

    with pytest.raises(Refused) as caught:
        read(Payload.FromString(content).metrics[0], 12)
    assert caught.value.code == "bad_encoding"


def dataset(columns: list[str], types: list[int], rows: list[list[Any]], count: int | None = None) -> Any:
    made = Metric()
    value = made.dataset_value
    value.num_of_columns = len(columns) if count is None else count
    value.columns.extend(columns)
    value.types.extend(types)
    for row in rows:
        elements = value.rows.add().elements
        for cell in row:
            element = elements.add()
            if cell is not None:
                setattr(element, "double_value" if isinstance(cell, float) else "int_value", cell)
    return made


def test_a_dataset_becomes_json_with_the_names_of_its_types() -> None:
    text = read(dataset(["v", "n"], [10, 1], [[0.5, 255], [None, 1]]), 16)

    assert json.loads(str(text)) == {"columns": ["v", "n"], "types": ["Double", "Int8"], "rows": [[0.5, -1], [None, 1]]}


@pytest.mark.parametrize(
    "made", [dataset(["a"], [3], [], 2), dataset(["a"], [3, 3], []), dataset(["a"], [3], [[1, 2]])]
)
def test_a_dataset_that_does_not_fit_itself_is_refused(made: Any) -> None:
    with pytest.raises(Refused) as caught:
        read(made, 16)
    assert caught.value.code == "bad_structure"


def compressed(body: bytes, algorithm: str | None) -> bytes:
    made = Payload(uuid=COMPRESSED, body=body)
    if algorithm is not None:
        add(made, "algorithm", algorithm)
    content: bytes = made.SerializeToString()
    return content


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


INNER: bytes = payload(3, DAY_MS, t=2.5).SerializeToString()


@pytest.mark.parametrize(
    ("body", "algorithm"),
    [
        (gzip.compress(INNER), "GZIP"),
        (zlib.compress(INNER), "DEFLATE"),
        (raw_deflate(INNER), "DEFLATE"),
        (zlib.compress(INNER), None),
    ],
)
def test_a_compressed_payload_is_the_one_inside(body: bytes, algorithm: str | None) -> None:
    assert unpack(compressed(body, algorithm)) == Payload.FromString(INNER)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "no_values"),
        (b'{"t":1}', "bad_syntax"),
        (b"\0" * (MAX_BYTES + 1), "too_large"),
        (compressed(gzip.compress(INNER)[:-9], "GZIP"), "bad_syntax"),
        (compressed(b"garbage", "GZIP"), "bad_syntax"),
        (compressed(INNER, "ZSTD"), "unsupported"),
        (compressed(zlib.compress(b"\0" * (MAX_BYTES + 1)), "DEFLATE"), "too_large"),
    ],
)
def test_what_cannot_be_unpacked_says_why(content: bytes, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        unpack(content)
    assert caught.value.code == code
