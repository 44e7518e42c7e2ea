from __future__ import annotations

from dashboard_api.columns import MOST, USUAL, read


def test_nothing_asked_for_is_the_usual():
    assert [column.name for column in read([]).shown] == list(USUAL)
    assert read(["", " , "]).asked == ""


def test_names_come_in_order_once_and_apart_by_commas_or_spaces():
    columns = read(["fw", "attr.floor,tag.site tag.a.b", "fw"])

    assert columns.asked == "fw,attr.floor,tag.site,tag.a.b"
    assert [column.label for column in columns.shown] == ["Firmware", "floor", "site", "a.b"]
    assert (columns.keyed, columns.kinds) == ("attr.floor tag.site tag.a.b", {"fw", "attr", "tag"})


def test_what_is_no_column_is_named():
    columns = read(["floor tag. state __class__"])

    assert [column.name for column in columns.shown] == ["state"]
    assert list(columns.unknown) == ["floor", "tag.", "__class__"]


def test_columns_are_bounded():
    assert len(read([f"tag.k{number}" for number in range(100)]).shown) == MOST
