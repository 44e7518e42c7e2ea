"""Each query finds in SQLite and in PostgreSQL what a plain Python test of the same devices finds."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from devices import pages
from devices.credentials import issue
from devices.database.engine import Database
from devices.database.schema import migrate
from devices.database.tables import DEVICES, PRESENCE
from devices.database.tables_finding import GROUP_MEMBERS, GROUPS
from devices.database.tables_gateways import CHILDREN
from devices.gateways.names import add_names
from devices.groups.store import group_finder
from devices.query.parser import parse
from devices.query.sql import condition
from devices.query.tree import BadQuery
from devices.rows import DeviceFilter, NewDevice, Who
from devices.statements import HOME
from devices.store import DeviceStore
from wire.clock import NS_PER_S, format_ns
from wire.registry import CredentialCreate

TENANT = "default"
NOW_NS = 1_800_000_000 * NS_PER_S
TYPES = [None, "pump", "Pump", "pump_2", "100%", "a*b", "a[b", "gre'en", "\u00e9tage"]
SITES = ["a", "b", "a b", "A", "%", "_", "*", "", "x\\y"]
FLOORS = [3, 3.0, 3.5, -1, "3", "three", True, 1e30, 0, "+3", "3.0"]
VERSIONS = ["1.2", "v1.2.0", "1.10", "1.2-rc1", "0.9", "unknown", "2+x"]
PLANTS = ["Plant A", "\u00c9tage", "100%"]
AGES_S = [0, 59, 3_599, 3_600, 3_601, 90_000]


@dataclass
class Thing:
    id: str
    type: str | None
    tags: dict[str, str]
    attributes: dict[str, Any]
    gateway: bool
    online: bool
    seen_ns: int | None
    groups: set[str] = field(default_factory=set)
    parent: str | None = None
    stale: bool = False
    names: list[str] = field(default_factory=list)

    @property
    def presence(self) -> str:
        if self.online:
            return "stale" if self.stale else "online"
        return "never" if self.seen_ns is None else "offline"


Test = Callable[[Thing], bool]


def make_things() -> list[Thing]:
    dice = Random(7)
    things = []
    for number in range(160):
        tags = {"site": dice.choice(SITES)} if dice.random() < 0.7 else {}
        tags |= {"line": dice.choice("xy")} if dice.random() < 0.5 else {}
        attributes = {"floor": dice.choice(FLOORS)} if dice.random() < 0.7 else {}
        attributes |= {"fw": dice.choice(VERSIONS)} if dice.random() < 0.7 else {}
        seen_ns = NOW_NS - dice.choice(AGES_S) * NS_PER_S if dice.random() < 0.7 else None
        thing = Thing(f"{dice.choice(['pump', 'Pump', 'p_mp', 'x.y'])}-{number}", dice.choice(TYPES), tags, attributes,
                      dice.random() < 0.3, seen_ns is not None and dice.random() < 0.5, seen_ns)  # fmt: skip
        thing.groups = {name for name in ("blue", "red") if dice.random() < 0.3}
        things.append(thing)
    for thing in things:
        thing.parent = dice.choice([None, things[0].id, things[1].id])
        thing.stale = thing.online and dice.random() < 0.4
        if dice.random() < 0.4:
            thing.names = [f"spb:{dice.choice(PLANTS)}/{thing.id}", *dice.choice([[], [f"senml:{thing.id}"]])]
    return things


THINGS = make_things()
DYNAMIC = {"awake": "online or group=red", "far": "not group=awake", "loop": "group=loop"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request, tmp_path_factory) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("fleet")
    url = "sqlite:" if request.param == "sqlite" else request.getfixturevalue("postgresql").database()
    database = Database(url, folder)
    migrate(database, folder)
    fill(database)
    yield database
    database.close()


@pytest.fixture(scope="module")
def find(database) -> Callable[[str], set[str]]:
    def found(query: str) -> set[str]:
        tree = parse(query, NOW_NS)
        with database.read() as connection:
            ways = [
                condition(tree, TENANT, group_finder(connection, TENANT), is_narrowed=each) for each in (False, True)
            ]
            whole, one_by_one = (
                set(connection.execute(select(DEVICES.c.id).select_from(HOME).where(way)).scalars()) for way in ways
            )
        page = DeviceStore(database).search(TENANT, DeviceFilter(tree=tree, limit=1_000))
        assert whole == one_by_one == {device.id for device in page}
        return whole

    return found


def fill(database: Database) -> None:
    new = [
        NewDevice(thing.id, thing.type, thing.tags, thing.gateway, issue(thing.id, 1, CredentialCreate())[1],
                  attributes=thing.attributes)
        for thing in THINGS
    ]  # fmt: skip
    DeviceStore(database).add(new, Who("test"), "device.create")
    seen = [
        {"tenant": TENANT, "device": thing.id, "online": thing.online, "connected": False, "said": None,
         "last_seen_ns": thing.seen_ns or 0, "since_ns": 0, "gone_ns": 0, "stale": thing.stale, "event": "", "event_ns": 0,
         "before_ns": 0}
        for thing in THINGS
        if thing.seen_ns is not None or thing.gateway
    ]  # fmt: skip
    groups = {"blue": None, "red": None} | DYNAMIC
    with database.write() as transaction:
        transaction.execute(insert(PRESENCE), seen)
        children = [{"tenant": TENANT, "device": thing.id, "gateway": thing.parent, "since_ns": 1}
                    for thing in THINGS if thing.parent]  # fmt: skip
        transaction.execute(insert(CHILDREN), children)
        for thing in THINGS:
            add_names(
                transaction, (TENANT, thing.parent or thing.id), dict.fromkeys(thing.names, thing.id), Who("test")
            )
        named = {"tenant": TENANT, "description": "", "created_ns": 1, "updated_ns": 1}
        transaction.execute(insert(GROUPS), [named | {"name": name, "query": query} for name, query in groups.items()])
        members = [{"tenant": TENANT, "name": name, "device": thing.id} for thing in THINGS for name in thing.groups]
        transaction.execute(insert(GROUP_MEMBERS), members)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def matches(value: str | None, pattern: str) -> bool:
    if value is None:
        return False
    if "*" not in pattern and "?" not in pattern:
        return pattern in value
    return re.fullmatch(fnmatch.translate(pattern.replace("[", "[[]")), value) is not None


def in_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return {"True": "true", "False": "false", "1e+30": "1e30"}.get(str(value), str(value))


def in_number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def release(version: Any) -> tuple[Any, ...] | None:
    """As tuples: an order of its own, for the few versions of this fleet."""
    known = {"0.9": (0, 9), "1.2-rc1": (1, 2, -1), "1.2": (1, 2), "v1.2.0": (1, 2), "1.10": (1, 10), "2+x": (2,)}
    return known.get(version)


ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def texts(name: str, get: Callable[[Thing], str | None], values: list[str]) -> st.SearchStrategy[tuple[str, Test]]:
    some = st.sampled_from(values)
    patterns = st.one_of(some, some.map(lambda value: f"*{value[1:]}"), some.map(lambda value: f"?{value}*"))
    return st.one_of(
        some.map(lambda value: (f"{name}={quoted(value)}", lambda thing: get(thing) == value)),
        some.map(lambda value: (f"{name}!={quoted(value)}", lambda thing: get(thing) != value)),
        patterns.map(lambda value: (f"{name}~{quoted(value)}", lambda thing: matches(get(thing), value))),
        st.lists(some, min_size=1, max_size=3).map(
            lambda many: (f"{name} in ({', '.join(map(quoted, many))})", lambda thing: get(thing) in many)
        ),
        st.just((f"has {name}", lambda thing: get(thing) is not None)),
    )


def floors() -> st.SearchStrategy[tuple[str, Test]]:
    def order(pair):
        operator, bound = pair

        def holds(thing: Thing) -> bool:
            number = in_number(thing.attributes.get("floor"))
            return number is not None and ORDERS[operator](number, bound)

        return f"attr.floor{operator}{bound}", holds

    def equal(text):
        def holds(thing: Thing) -> bool:
            value = thing.attributes.get("floor")
            as_number = float(text) if re.fullmatch(r"[+-]?[0-9.e]+", text) else None
            return in_text(value) == text or (as_number is not None and in_number(value) == as_number)

        return f"attr.floor={text}", holds

    bounds = st.tuples(st.sampled_from(list(ORDERS)), st.sampled_from([3, 3.5, -2, 0]))
    return st.one_of(bounds.map(order), st.sampled_from(["3", "3.0", "true", "three", "+3", "1e30", "-1"]).map(equal))


def versions() -> st.SearchStrategy[tuple[str, Test]]:
    def order(pair):
        operator, bound = pair

        def holds(thing: Thing) -> bool:
            mine, other = release(thing.attributes.get("fw")), release(bound)
            if mine is None or mine == other:
                return mine is not None and "=" in operator
            rc = [(1, 2, 0) if each == (1, 2) else each for each in (mine, other)]
            return ORDERS[operator](*rc)

        return f"fw {operator} {bound}", holds

    def equal(bound):
        def holds(thing: Thing) -> bool:
            mine = thing.attributes.get("fw")
            return mine == bound or (release(mine) is not None and release(mine) == release(bound))

        return f"fw={bound}", holds

    ordered = st.sampled_from([version for version in VERSIONS if release(version)])
    return st.one_of(st.tuples(st.sampled_from(list(ORDERS)), ordered).map(order), st.sampled_from(VERSIONS).map(equal))


def times() -> st.SearchStrategy[tuple[str, Test]]:
    def order(pair):
        operator, age_s = pair
        bound_ns = NOW_NS - age_s * NS_PER_S

        def holds(thing: Thing) -> bool:
            return thing.seen_ns is not None and ORDERS[operator](thing.seen_ns, bound_ns)

        written = f"{age_s}s ago" if age_s % 2 else format_ns(bound_ns)
        return f"last_seen {operator} {written}", holds

    return st.tuples(st.sampled_from(list(ORDERS)), st.sampled_from(AGES_S)).map(order)


def is_in(thing: Thing, group: str) -> bool:
    awake = thing.online or "red" in thing.groups
    return {"awake": awake, "far": not awake}.get(group, group in thing.groups)


def contains(thing: Thing, text: str) -> bool:
    parts = (thing.id, thing.type, *thing.tags.values(), *thing.names)
    return any(text.lower() in (part or "").lower() for part in parts)


def names() -> st.SearchStrategy[tuple[str, Test]]:
    held = st.sampled_from([name for thing in THINGS for name in thing.names])
    parts = st.sampled_from(["plant a", "Plant A", "spb:*", "*\u00c9tage*", "senml:*1?", "%"])
    return st.one_of(
        held.map(lambda name: (f"name={quoted(name)}", lambda thing: name in thing.names)),
        held.map(lambda name: (f"name!={quoted(name)}", lambda thing: name not in thing.names)),
        parts.map(
            lambda part: (f"name~{quoted(part)}", lambda thing: any(matches(each, part) for each in thing.names))
        ),
        st.just(("has name", lambda thing: bool(thing.names))),
    )


GROUPS_ASKED = st.sampled_from(["blue", "red", "awake", "far"])
SINGLE = st.one_of(
    texts("type", lambda thing: thing.type, [kind for kind in TYPES if kind]),
    texts("id", lambda thing: thing.id, ["pump-1", "Pump-", "p_mp", "x.y-", "nobody", "[", "%"]),
    texts("parent", lambda thing: thing.parent, [THINGS[0].id, THINGS[1].id, THINGS[0].id[-4:]]),
    texts("tag.site", lambda thing: thing.tags.get("site"), SITES),
    texts("tag.line", lambda thing: thing.tags.get("line"), ["x", "y", "z"]),
    names(),
    floors(),
    versions(),
    times(),
    st.just(("online", lambda thing: thing.online)),
    st.just(("offline", lambda thing: not thing.online)),
    st.just(("gateway", lambda thing: thing.gateway)),
    st.just(("has last_seen", lambda thing: thing.seen_ns is not None)),
    st.just(("has fw", lambda thing: "fw" in thing.attributes)),
    st.just(("has attr.floor", lambda thing: "floor" in thing.attributes)),
    st.just(("has group", lambda thing: bool(thing.groups))),
    st.just(("state=active", lambda thing: thing.seen_ns is not None)),
    st.just(("state in (registered, disabled)", lambda thing: thing.seen_ns is None)),
    st.just(("created > 2020-01-01", lambda thing: True)),
    st.sampled_from(["online", "stale", "offline", "never"]).map(
        lambda word: (f"presence={word}", lambda thing: thing.presence == word)
    ),
    st.just(("presence in (stale, never_seen)", lambda thing: thing.presence in ("stale", "never"))),
    GROUPS_ASKED.map(lambda name: (f"group={name}", lambda thing: is_in(thing, name))),
    GROUPS_ASKED.map(lambda name: (f"group not in (blue, {name})",
                                   lambda thing: not is_in(thing, "blue") and not is_in(thing, name))),
    st.sampled_from(["PUMP", "%", "_", "\u00c9tage", "\u00e9TAGE/p", "spb:plant", "x\\", "b"]).map(
        lambda text: (quoted(text), lambda thing: contains(thing, text))
    ),
)  # fmt: skip


def joined(inner: st.SearchStrategy[tuple[str, Test]]) -> st.SearchStrategy[tuple[str, Test]]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda one: (f"not ({one[0]})", lambda thing: not one[1](thing))),
        pairs.map(lambda two: (f"({two[0][0]}) ({two[1][0]})", lambda thing: two[0][1](thing) and two[1][1](thing))),
        pairs.map(lambda two: (f"({two[0][0]}) and ({two[1][0]})",
                               lambda thing: two[0][1](thing) and two[1][1](thing))),
        pairs.map(lambda two: (f"({two[0][0]} or {two[1][0]})", lambda thing: two[0][1](thing) or two[1][1](thing))),
    )  # fmt: skip


@st.composite
def queries(draw) -> tuple[str, Test]:
    return draw(st.recursive(SINGLE, joined, max_leaves=6))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked=queries())
def test_databases_find_what_plain_python_finds(find, asked) -> None:
    query, test = asked

    assert find(query) == {thing.id for thing in THINGS if test(thing)}, query


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind])
def test_odd_texts_stand_for_themselves_in_patterns(find, kind) -> None:
    for pattern in (kind, f"{kind[0]}*{kind[1:]}", f"*{kind[1:]}"):
        expected = {thing.id for thing in THINGS if matches(thing.type, pattern)}
        assert expected
        assert find(f"type~{quoted(pattern)}") == expected


@pytest.mark.parametrize("query", ["", "type=pump or type!=pump", "not (type~x and not type~x)"])
def test_always_true_finds_every_device(find, query) -> None:
    assert len(find(query)) == len(THINGS)


def test_unknown_and_circular_groups_are_told(find) -> None:
    with pytest.raises(BadQuery, match="no group 'green' at character 12"):
        find("type=x and group=green")
    with pytest.raises(BadQuery, match="4 deep"):
        find("group=loop")


@pytest.mark.parametrize(
    "query", ["online", "not online", "has attr.floor", "attr.floor>=3 and type=pump", "id~nothing*"]
)
@pytest.mark.parametrize("looked_at", [1, 30, 1_000])
def test_pages_together_hold_what_the_query_finds(database, find, monkeypatch, query, looked_at) -> None:
    monkeypatch.setattr(pages, "LOOKED_AT", looked_at)
    devices, tree = DeviceStore(database), parse(query, NOW_NS)
    found = [devices.search(TENANT, DeviceFilter(tree=tree, limit=7))]
    while len(found[-1]) == 7:
        found.append(devices.search(TENANT, DeviceFilter(tree=tree, limit=7, after=found[-1][-1].id)))

    listed = [device.id for page in found for device in page]
    assert listed == sorted(find(query), key=str.encode)


def test_pages_of_queries_that_differ_in_values_share_a_statement_and_no_value(database, find) -> None:
    queries = [f"type={kind} and tag.site={site}" for kind in ("pump", "Pump", "pump_2") for site in "abA"]
    built = pages._remembered.cache_info().misses

    found = {frozenset(find(query)) for query in queries}

    assert len(found) > 2
    assert pages._remembered.cache_info().misses <= built + 1


def test_filters_beside_a_query_hold_as_well(database, find) -> None:
    asked = DeviceFilter(tree=parse("type=pump and tag.site=a", NOW_NS), tags=(("line", "x"),), limit=1_000)

    page = DeviceStore(database).search(TENANT, asked)

    assert {device.id for device in page} == find("type=pump and tag.site=a and tag.line=x")
