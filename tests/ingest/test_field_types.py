"""First types of fields: recorded once, kept over restarts, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest import field_types
from ingest.field_types import MAX_FIELDS, FieldTypes

SERIES = ("default", "d1", "telemetry")


def fit(types: FieldTypes, fields: dict, *, is_typed: bool = False) -> tuple[dict, list[tuple[str, str]]]:
    conflicts = types.fit(SERIES, fields, is_typed=is_typed)
    types.save()
    return fields, [(each.field, each.code) for each in conflicts]


@pytest.mark.parametrize(
    ("first", "then", "typed", "kept"),
    [
        (1.5, 2**60, False, float(2**60)),
        (2**60, 5.0, False, 5),
        (2**60, 5.5, False, None),
        (2**60, 5.0, True, None),
        (1.0, "x", False, None),
        (1.0, True, False, None),
        (True, 1.0, False, None),
        ("x", 1.0, False, None),
        ("x", "y", False, "y"),
    ],
)
def test_value_is_brought_to_the_first_type_or_taken_out(tmp_path: Path, first, then, typed, kept) -> None:
    types = FieldTypes(tmp_path / "t.db")
    fit(types, {"a": first})

    fields, conflicts = fit(types, {"a": then, "b": 1.0}, is_typed=typed)

    assert fields == ({"b": 1.0} if kept is None else {"a": kept, "b": 1.0})
    assert type(fields.get("a")) is type(kept)
    assert conflicts == ([("a", "type_conflict")] if kept is None else [])
    types.close()


def test_types_survive_reopening(tmp_path: Path) -> None:
    first = FieldTypes(tmp_path / "t.db")
    fit(first, {"a": "x"})
    first.close()
    second = FieldTypes(tmp_path / "t.db")

    assert fit(second, {"a": 1.0}) == ({}, [("a", "type_conflict")])
    second.close()


def test_other_process_that_was_first_wins(tmp_path: Path) -> None:
    one, other = FieldTypes(tmp_path / "t.db"), FieldTypes(tmp_path / "t.db")
    one.fit(SERIES, {"a": 1.0}, is_typed=False)
    other.fit(SERIES, {"a": "x"}, is_typed=False)
    one.save()
    other.save()

    assert fit(other, {"a": "x"}) == ({}, [("a", "type_conflict")])
    one.close()
    other.close()


def test_unsaved_type_rules_at_once(tmp_path: Path) -> None:
    types = FieldTypes(tmp_path / "t.db")
    types.fit(SERIES, {"a": 1.0}, is_typed=False)

    assert [each.code for each in types.fit(SERIES, {"a": "x"}, is_typed=False)] == ["type_conflict"]
    types.close()


def test_random_names_do_not_fill_the_disk(tmp_path: Path) -> None:
    types = FieldTypes(tmp_path / "t.db")
    fit(types, {f"n{number}": 1.0 for number in range(MAX_FIELDS)})

    assert fit(types, {"one_more": 1.0, "n0": 2.0}) == ({"n0": 2.0}, [("one_more", "too_many_fields")])
    types.close()


def test_random_measurements_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_types, "MAX_MEASUREMENTS", 3)
    types = FieldTypes(tmp_path / "t.db")

    def begin(measurement: str, device: str = "d1") -> list[str]:
        conflicts = types.fit(("default", device, measurement), {"a": 1.0}, is_typed=True)
        types.save()
        return [each.code for each in conflicts]

    assert [begin(f"m{number}") for number in range(5)] == [[], [], [], ["too_many_fields"], ["too_many_fields"]]
    types = FieldTypes(tmp_path / "t.db")
    assert [begin("m0"), begin("m1"), begin("m3"), begin("m3", "d10"), begin("m3", "d")] == [
        [],
        [],
        ["too_many_fields"],
        [],
        [],
    ]


def test_damaged_file_is_set_aside_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(b"no database at all" * 100)

    types = FieldTypes(tmp_path / "t.db")

    assert fit(types, {"a": 1.0}) == ({"a": 1.0}, [])
    assert fit(types, {"a": "x"}) == ({}, [("a", "type_conflict")])
    assert len(list(tmp_path.glob("t.db.damaged-*"))) == 1
    types.close()


def test_second_worker_that_finds_the_damage_keeps_the_new_file(tmp_path: Path) -> None:
    one, other = FieldTypes(tmp_path / "t.db"), FieldTypes(tmp_path / "t.db")

    one._begin_anew()
    fit(one, {"a": 1.0})
    other._begin_anew()

    assert fit(other, {"a": "x"}) == ({}, [("a", "type_conflict")]), "both know the same file"
    assert len(list(tmp_path.glob("t.db.damaged-*[0-9]"))) == 1
    one.close()
    other.close()


def test_file_damaged_while_open_costs_nothing_that_is_in_memory(tmp_path: Path) -> None:
    types = FieldTypes(tmp_path / "t.db")
    fit(types, {"a": 1.0})
    fit(types, {"a": 2.0})
    types._database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with (tmp_path / "t.db").open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * 8_192)
    other = ("default", "d2", "telemetry")
    types._database.connection.execute("PRAGMA shrink_memory").fetchall()

    types.fit(other, {"b": True}, is_typed=False)
    types.save()
    types.close()

    assert len(list(tmp_path.glob("t.db.damaged-*"))) == 1
    again = FieldTypes(tmp_path / "t.db")
    assert fit(again, {"a": "x"}) == ({}, [("a", "type_conflict")])
    assert again.fit(other, {"b": 1.0}, is_typed=False)[0].code == "type_conflict"
    again.close()
