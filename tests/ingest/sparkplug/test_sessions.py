"""Sessions of edge nodes: the shared cases step by step, and what no single case shows."""

from __future__ import annotations

import json
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.protocols.base import Context, Decoded, Description
from ingest.protocols.sparkplug import names
from ingest.protocols.sparkplug.kept import KeptSessions
from ingest.protocols.sparkplug.session import ASK_AGAIN_S, REORDER_S, Gap, Key, Session
from ingest.protocols.sparkplug.sessions import ASKS_PER_S, Sessions, Taken
from tests.ingest.intake_support import CASES
from tests.ingest.samples import Sample
from tests.ingest.sparkplug.made import DAY_MS, add, birth, data, death, payload
from tests.ingest.test_mutated_messages import damaged
from wire import clock
from wire.errors import REASONS
from wire.points import HISTORICAL

RECEIVED_NS = 1_772_700_000 * clock.NS_PER_S
NODE = "spb:plant/n1"
KEY = Key("", NODE)
BIRTH, DATA, DEATH = "spBv1.0/plant/NBIRTH/n1", "spBv1.0/plant/NDATA/n1", "spBv1.0/plant/NDEATH/n1"
STEPS = sorted((CASES / "sparkplug").glob("*/steps.json"))


class Host:
    """Sessions with a clock of their own, and all that came of what they took."""

    def __init__(self, kept: dict[Key, Session] | None = None) -> None:
        self.sessions = Sessions(kept)
        self.now_s = 1_000.0
        self.values: dict[tuple[str, str, int | None], Any] = {}
        self.codes: list[str] = []
        self.online: dict[str, bool] = {}
        self.asked: list[str] = []
        self.gaps: list[Gap] = []

    def say(self, topic: str, content: bytes) -> Taken:
        taken = self.sessions.take(content, Context(RECEIVED_NS, topic=topic, transport="mqtt"), self.now_s)
        for record in taken.decoded.records:
            self.values |= {(str(record.device), name, record.time_ns): value for name, value in record.fields.items()}
        self.codes += [fault.code for fault in taken.decoded.faults]
        self.online |= taken.decoded.presence
        self.sessions.commit()
        self.look()
        return taken

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.look()

    def look(self) -> None:
        asked, gaps = self.sessions.due(self.now_s)
        self.asked += asked
        self.gaps += gaps.values()

    def value(self, name: str, device: str = NODE) -> Any:
        found = {key: value for key, value in self.values.items() if key[:2] == (device, name)}
        return found[max(found, key=lambda key: key[2] or 0)] if found else None


def born(host: Host | None = None, **values: Any) -> Host:
    host = host or Host()
    host.say(BIRTH, birth(**values))
    return host


def comparable(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else (type(value), value)


def check(host: Host, expected: dict[str, Any], asked_before: int) -> None:
    for point in expected.get("points", []):
        time_ns = clock.parse_rfc3339(point["time"])[0]
        for name, value in point["fields"].items():
            assert comparable(host.values[point["device"], name, time_ns]) == comparable(value)
    assert host.codes == [each["code"] for each in expected.get("quarantined", [])] or "quarantined" not in expected
    assert {name: "online" if host.online[name] else "offline" for name in expected.get("state", {})} == expected.get(
        "state", {}
    )
    assert [host.online[name] for name in expected.get("stale", [])] == [False] * len(expected.get("stale", []))
    assert len(host.asked) - asked_before == expected.get("ncmd_rebirth", len(host.asked) - asked_before)
    events = [{"kind": "seq_gap", "expected": gap.expected, "got": gap.got} for gap in host.gaps]
    assert events == expected.get("events", events)


@pytest.mark.parametrize("steps", STEPS, ids=[path.parent.name for path in STEPS])
def test_case(steps: Path) -> None:
    host, asked_before = Host(), 0
    for step in json.loads(steps.read_text())["steps"]:
        host.wait(step.get("wait_ms", 0) / 1000)
        if "publish" in step:
            host.say(step["publish"]["topic"], (steps.parent / step["publish"]["file"]).read_bytes())
        if "expect" in step:
            check(host, step["expect"], asked_before)
            asked_before = len(host.asked)


@given(order=st.permutations(range(1, 9)), start=st.integers(0, 255))
def test_messages_out_of_order_are_all_kept_and_make_no_gap(order: list[int], start: int) -> None:
    host = born(seq=start)
    for number in order:
        host.say(DATA, data((start + number) % 256, DAY_MS + number, v=float(number)))
        host.wait(REORDER_S / 100)

    host.wait(ASK_AGAIN_S)
    assert (host.gaps, host.asked, host.codes) == ([], [], [])
    assert sorted(value for value in host.values.values() if value) == [float(number) for number in range(1, 9)]


@given(missing=st.sets(st.integers(1, 400), max_size=6))
def test_each_gap_asks_for_a_birth_once_its_time_is_over(missing: set[int]) -> None:
    host = born()
    for number in range(1, 402):
        if number not in missing:
            host.say(DATA, data(number % 256, DAY_MS + number, v=number))
            host.wait(REORDER_S + 0.1)

    runs = [number for number in missing if number - 1 not in missing]
    assert len(host.gaps) == len(runs)
    assert bool(host.asked) == bool(runs)
    assert len(host.values) == 401 - len(missing)


def test_a_message_that_came_twice_is_kept_once() -> None:
    host = born()
    host.say(DATA, data(1, v=1.0))

    assert host.say(DATA, data(1, v=1.0)).is_repeated
    assert not host.say(DATA, data(2, v=1.0)).is_repeated


def test_a_birth_delivered_again_changes_nothing() -> None:
    host = born()
    host.say(DATA, data(1, v=1.0))

    assert host.say(BIRTH, birth()).is_repeated
    host.say(DATA, data(2, v=2.0))
    host.wait(60)
    assert host.asked == []


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    host = born(x=1)
    host.say(DATA, data(1, v=1.0))
    host.say("spBv1.0/plant/DBIRTH/n1/pump", device_birth(2))
    kept = KeptSessions(tmp_path / "sessions.db")
    kept.save(host.sessions._nodes)
    kept.close()

    again = Host(KeptSessions(tmp_path / "sessions.db").sessions)
    made = payload(3)
    add(made, None, 7.5, alias=4, datatype=0)
    again.say("spBv1.0/plant/DDATA/n1/pump", made.SerializeToString())
    again.wait(60)
    assert again.value("hum", f"{NODE}/pump") == 7.5
    assert (again.codes, again.asked, again.gaps) == ([], [], [])


def device_birth(seq: int, alias: int = 4) -> bytes:
    made = payload(seq)
    add(made, "hum", 50.0, alias=alias)
    content: bytes = made.SerializeToString()
    return content


def test_a_message_whose_records_were_not_kept_finds_its_session_as_it_was() -> None:
    host = born()
    before = host.sessions._nodes[KEY].to_json()
    context = Context(RECEIVED_NS, topic=DATA)

    host.sessions.take(data(1, v=1.0), context, host.now_s)
    host.sessions.rollback()

    assert host.sessions._nodes[KEY].to_json() == before
    again = host.sessions.take(data(1, v=1.0), context, host.now_s)
    assert not again.is_repeated
    assert again.decoded.records[0].fields == {"v": 1.0}


def test_births_are_asked_for_ever_more_rarely_while_none_comes() -> None:
    host = Host()
    moments = []
    for second in range(20_000):
        host.now_s = 1_000.0 + second
        before = len(host.asked)
        host.say(DATA, data(second % 256, DAY_MS + second, v=1))
        moments += [second] * (len(host.asked) - before)

    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert pauses[:8] == [30, 60, 120, 240, 480, 960, 1920, 3600]
    assert set(pauses[8:]) <= {3600}
    born(host)
    host.say(DATA, data(7, v=1))
    host.wait(REORDER_S + 0.1)
    assert len(host.asked) == len(moments) + 1


def test_thousands_of_unknown_nodes_are_asked_one_after_the_other() -> None:
    host = Host()
    for number in range(1_000):
        host.sessions.take(data(1, v=1), Context(RECEIVED_NS, topic=f"spBv1.0/plant/NDATA/n{number}"), host.now_s)
    host.sessions.commit()

    seconds = 0
    while len(host.asked) < 1_000:
        before = len(host.asked)
        host.wait(1.0)
        assert len(host.asked) - before <= ASKS_PER_S
        seconds += 1
    assert seconds >= 49
    assert len(set(host.asked)) == 1_000


def test_a_gap_is_told_while_thousands_of_nodes_wait_to_be_asked() -> None:
    host = born()
    host.say(DATA, data(2, v=1.0))
    for number in range(1_000):
        host.sessions.take(data(1, v=1), Context(RECEIVED_NS, topic=f"spBv1.0/plant/NDATA/m{number}"), host.now_s)
    host.sessions.commit()

    host.wait(REORDER_S)
    assert host.gaps == [Gap(1, 2)]


def test_a_fast_node_that_loses_one_message_keeps_its_aliases() -> None:
    host = Host()
    made = payload(0)
    add(made, "v", 1.0, alias=9)
    host.say(BIRTH, made.SerializeToString())
    for number in range(2, 300):
        host.say(DATA, alias_data(number % 256, 9, later_ms=number))
        host.now_s += REORDER_S / 300

    assert host.codes == []
    assert host.gaps == [Gap(1, 2)]
    assert len(host.asked) == 1


def test_a_node_without_a_clock_says_the_same_in_each_session() -> None:
    host = Host()
    for death_number in range(3):
        host.say(BIRTH, birth(0, death_number, time_ms=0))
        assert not host.say(DATA, data(1, 0, v=1.0)).is_repeated

    host.wait(60)
    assert (host.codes, host.asked) == ([], [])


def alias_birth(name: str, *, later_ms: int = 0) -> bytes:
    made = payload(0, DAY_MS + later_ms)
    add(made, name, 1.0, alias=9)
    content: bytes = made.SerializeToString()
    return content


def test_a_birth_that_was_asked_for_counts_though_it_is_the_same_as_before() -> None:
    host = Host()
    host.say(BIRTH, alias_birth("v"))
    host.say(DATA, alias_data(2, 9))
    host.wait(REORDER_S)
    assert len(host.asked) == 1

    host.say(BIRTH, alias_birth("v"))
    host.say(DATA, alias_data(1, 9, later_ms=50))
    host.wait(60)
    assert (host.codes, len(host.asked)) == ([], 1)


def test_what_was_said_before_several_births_is_read_by_none_of_them() -> None:
    host = Host()
    said = [(BIRTH, alias_birth("a")), (DATA, alias_data(1, 9)), (BIRTH, alias_birth("b", later_ms=100))]
    for each in (*said, (BIRTH, alias_birth("c", later_ms=200))):
        host.say(*each)

    assert [host.say(*each).is_repeated for each in said] == [True] * 3
    host.say(DATA, alias_data(1, 9, later_ms=300))
    assert host.value("c") == 3.5
    assert (host.codes, host.asked) == ([], [])


def test_a_node_that_was_not_heard_for_longest_is_forgotten_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ingest.protocols.sparkplug.sessions.MAX_NODES", 2)
    host, kept = born(), KeptSessions(tmp_path / "sessions.db")
    kept.save(host.sessions._nodes)
    for topic, seq in (("NBIRTH/n2", 0), ("NDATA/n1", 1), ("NBIRTH/n3", 0)):
        host.sessions.take(birth(seq), Context(RECEIVED_NS, topic=f"spBv1.0/plant/{topic}"), host.now_s)
        kept.save(host.sessions.changes())
        host.sessions.commit()

    kept_nodes = [key.node for key in KeptSessions(tmp_path / "sessions.db").sessions]
    assert [key.node for key in host.sessions._nodes] == kept_nodes == [NODE, "spb:plant/n3"]
    assert host.sessions.online == 2
    host.say("spBv1.0/plant/NDATA/n2", data(1, v=1.0))
    assert host.codes == ["not_born"]
    kept.close()


def test_a_birth_of_many_metrics_is_kept_as_a_whole() -> None:
    host = Host()
    taken = host.say(BIRTH, birth(**{f"m{number}": number for number in range(1_000)}))

    assert host.codes == []
    assert len(host.values) == 1_000
    assert len({record.index for record in taken.decoded.records}) == len(taken.decoded.records) == 4


def test_the_state_of_another_host_application_is_no_data() -> None:
    host = Host()
    context = Context(RECEIVED_NS, topic="spBv1.0/STATE/scada", transport="mqtt", is_retained=True)

    assert host.sessions.take(b'{"online":true}', context, 0.0).decoded == Decoded(is_event=True)


def test_a_will_of_an_earlier_session_ends_nothing() -> None:
    host = born(death_number=4)

    assert host.say(DEATH, death(3)).is_repeated
    assert host.online == {NODE: True}
    host.say(DEATH, death(5))
    assert host.online == {NODE: False}


def test_aliases_may_move_at_a_rebirth() -> None:
    host = Host()
    for seq, name in ((0, "old"), (0, "newer")):
        made = payload(seq, DAY_MS + len(name))
        add(made, name, 1.0, alias=9)
        host.say(BIRTH, made.SerializeToString())
        host.say(DATA, alias_data(1, 9, later_ms=len(name)))
    assert host.value("newer") == 3.5

    host.say(DATA, alias_data(2, 8))
    assert host.codes == ["unknown_alias"]
    assert host.asked == ["spBv1.0/plant/NCMD/n1"]


def alias_data(seq: int, alias: int, *, later_ms: int = 0) -> bytes:
    made = payload(seq, DAY_MS + 10 + seq + later_ms)
    add(made, None, 3.5, alias=alias, datatype=0)
    content: bytes = made.SerializeToString()
    return content


def test_a_device_that_died_must_be_born_before_its_data_counts() -> None:
    host = born()
    host.say("spBv1.0/plant/DBIRTH/n1/pump", device_birth(1))
    host.say("spBv1.0/plant/DDEATH/n1/pump", data(2))
    assert host.online == {NODE: True, f"{NODE}/pump": False}

    host.say("spBv1.0/plant/DDATA/n1/pump", data(3, hum=1.0))
    host.wait(1)
    assert host.codes == ["not_born"]
    assert host.asked == ["spBv1.0/plant/NCMD/n1"]


def test_one_bad_metric_costs_itself_only() -> None:
    host = born()
    made = payload(1, a=1.0)
    add(made, "b", float("nan"))
    add(made, "c", 2.0)
    taken = host.say(DATA, made.SerializeToString())

    assert [record.fields for record in taken.decoded.records] == [{"a": 1.0, "c": 2.0}]
    assert [(fault.index, fault.code) for fault in taken.decoded.faults] == [(1, "nonfinite")]


def test_metrics_of_different_times_are_different_readings() -> None:
    host = born()
    made = payload(1)
    for at_ms, is_old in ((DAY_MS, False), (DAY_MS + 5, False), (DAY_MS + 5, True)):
        metric = add(made, "v", at_ms)
        metric.timestamp, metric.is_historical = at_ms, is_old
    records = host.say(DATA, made.SerializeToString()).decoded.records

    assert [(record.time_ns, record.flags & HISTORICAL) for record in records] == [
        (DAY_MS * 10**6, 0), ((DAY_MS + 5) * 10**6, 0), ((DAY_MS + 5) * 10**6, HISTORICAL)
    ]  # fmt: skip


def test_what_runs_the_session_is_no_telemetry() -> None:
    host = Host()
    made = payload(0, bdSeq=1, v=1.0)
    add(made, "Node Control/Rebirth", False)
    host.say(BIRTH, made.SerializeToString())

    assert set(host.values) == {(NODE, "v", DAY_MS * 10**6)}


def test_births_tell_units_bounds_and_texts_of_metrics() -> None:
    sessions, made = Sessions(), payload(0, DAY_MS)
    properties = add(made, "temp", 20.5).properties
    kinds = {str: "string_value", float: "double_value", int: "int_value", bool: "boolean_value"}
    told = {"engUnit": "Cel", "engLow": -20.0, "engHigh": 80, "documentation": "Bath", "x": True, "Quality": True}
    for key, one in told.items():
        properties.keys.append(key)
        setattr(properties.values.add(), kinds[type(one)], one)
    add(made, "plain", 1.0)

    taken = sessions.take(made.SerializeToString(), Context(RECEIVED_NS, topic=BIRTH), 0.0)

    assert taken.decoded.described == [Description("temp", "sparkplug", NODE, "Cel", "Bath", "", -20.0, 80.0)]
    assert taken.decoded.records[0].fields == {"temp": 20.5, "plain": 1.0}


def test_a_quality_that_is_not_good_is_told() -> None:
    host = born()
    made = payload(1)
    for quality in (192, 500):
        metric = add(made, f"v{quality}", 1.0)
        metric.properties.keys.append("Quality")
        value = metric.properties.values.add()
        value.type, value.int_value = 3, quality
    host.say(DATA, made.SerializeToString())

    assert {key[1]: value for key, value in host.values.items()} == {"v192": 1.0, "v500": 1.0, "v500.quality": 500}


@pytest.mark.parametrize(
    "topic",
    [
        "spBv1.0", "spBv1.0/plant", "spBv1.0/plant/NDATA", "spBv1.0/plant/NDATA/n1/extra", "spBv1.0/plant/DDATA/n1",
        "spBv1.0/plant/XDATA/n1", "spBv1.0/STATE/host", "spAv1.0/plant/NDATA/n1", "spBv1.0//NDATA/n1",
        "spBv1.0/plant/ndata/n1",
    ],
)  # fmt: skip
def test_other_topics_are_none_of_ours(topic: str) -> None:
    assert names.read(topic) is None


@pytest.mark.parametrize("group", ["Plant A", "Werk ü", "NDATA"])
def test_names_are_kept_as_they_are(group: str) -> None:
    spoken = names.read(f"spBv1.0/{group}/DDATA/Line 1/Pump 7")

    assert spoken is not None
    assert spoken.name == f"spb:{group}/Line 1/Pump 7"
    assert names.command(spoken.node_name) == f"spBv1.0/{group}/NCMD/Line 1"


def test_only_so_many_devices_of_a_node_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.protocols.sparkplug.sessions.MAX_DEVICES", 1)
    host = born()
    for seq, topic in enumerate(("DBIRTH/n1/a", "DBIRTH/n1/b", "DDEATH/n1/a", "DBIRTH/n1/b"), 1):
        host.say(f"spBv1.0/plant/{topic}", birth(seq))

    assert host.codes == ["too_large"]
    assert host.online[f"{NODE}/b"]


def test_sessions_that_changed_little_are_written_little(tmp_path: Path) -> None:
    host, kept = born(), KeptSessions(tmp_path / "sessions.db")

    def take(topic: str, content: bytes) -> None:
        host.sessions.take(content, Context(RECEIVED_NS, topic=topic), host.now_s)
        kept.save(host.sessions.changes())
        host.sessions.commit()

    take("spBv1.0/plant/DBIRTH/n1/pump", device_birth(1))
    kept._database.connection.execute("UPDATE births SET declared = 'as it was'")
    take(DATA, data(2, v=1.0))
    take("spBv1.0/plant/DBIRTH/n1/valve", device_birth(3))
    rows = dict(kept._database.read("SELECT device, declared = 'as it was' FROM births"))
    assert rows == {"": True, "pump": True, "valve": False}
    assert [json.loads(state)["expected"] for (state,) in kept._database.read("SELECT state FROM sessions")] == [4]

    take("spBv1.0/plant/DDEATH/n1/pump", data(4))
    assert kept._database.read("SELECT device FROM births") == [("",), ("valve",)]
    take(DEATH, death())
    assert kept._database.read("SELECT * FROM births") == kept._database.read("SELECT * FROM sessions") == []
    kept.close()


MESSAGES = 50_000 if os.environ.get("HEADWATER_TEST_LONG") else 5_000


@pytest.mark.parametrize("seed", range(2))
def test_damaged_messages_are_answered_and_harm_no_session(seed: int) -> None:
    dice, sessions = random.Random(seed), Sessions()
    known = [path.read_bytes() for path in CASES.glob("sparkplug/*/*.bin")] + [birth(), data(1, v=1.0), death()]
    samples = [Sample(content) for content in known]
    topics = [BIRTH, DATA, DEATH, *(f"spBv1.0/plant/{verb}/n1/pump" for verb in ("DBIRTH", "DDATA", "DDEATH"))]

    outcomes = [0, 0]
    for at, (content, _) in enumerate(damaged(samples, dice, MESSAGES // 2)):
        taken = sessions.take(content, Context(RECEIVED_NS, topic=dice.choice(topics)), at / 10)
        assert {fault.code for fault in taken.decoded.faults} <= REASONS.keys(), content
        assert all(record.fields for record in taken.decoded.records), content
        outcomes[bool(taken.decoded.faults)] += 1
        sessions.commit() if dice.random() < 0.9 else sessions.rollback()
        sessions.due(at / 10)

    assert all(count > MESSAGES // 50 for count in outcomes), outcomes


def test_nodes_of_one_tenant_cost_no_other_its_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.protocols.sparkplug.sessions.MAX_OF_TENANT", 2)
    sessions = Sessions()

    for number, sender in enumerate(("other/gw", "flood/a", "flood/b", "flood/a", "flood/b")):
        context = Context(RECEIVED_NS, topic=f"spBv1.0/plant/NBIRTH/n{number}", sender=sender)
        sessions.take(birth(), context, 0.0)
        sessions.commit()

    kept = [(key.sender, key.node) for key in sessions._nodes]
    assert kept == [("other/gw", "spb:plant/n0"), ("flood/a", "spb:plant/n3"), ("flood/b", "spb:plant/n4")]
