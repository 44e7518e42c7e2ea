from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from series.embedded.latest import move, pack, unpack

moves = st.lists(st.tuples(st.integers(0, 6), st.dictionaries(st.sampled_from("abcd"), st.integers(), min_size=1)))


@given(moves)
def test_each_field_keeps_its_newest_time_and_the_last_write_of_it(history):
    groups, model = [], {}
    for time_ns, fields in history:
        groups = move(groups, time_ns, fields)
        model.update({k: (time_ns, v) for k, v in fields.items() if k not in model or model[k][0] <= time_ns})

    assert {name: (time, value) for time, held in groups for name, value in held.items()} == model
    assert [time for time, _ in groups] == sorted({time for time, _ in groups}, reverse=True)


def test_nothing_new_gives_the_same_groups():
    groups = [(5, {"a": 1.0, "b": 2.0})]

    assert move(groups, 4, {"a": 9.0}) is groups


def test_move_leaves_what_it_was_given():
    fields = {"a": 1.0}
    groups = move([], 5, fields)
    move(groups, 6, {"b": 2.0})
    move(groups, 5, {"a": 3.0, "c": 1.0})

    assert (groups, fields) == ([(5, {"a": 1.0})], {"a": 1.0})


def test_packing_keeps_types():
    groups = [(2**63 - 1, {"a": -0.0, "b": True, "c": 2**64 - 1, "d": "é", "e": 1.0}), (-(2**63), {"f": -(2**63)})]

    assert repr(unpack(pack(groups))) == repr(groups)
