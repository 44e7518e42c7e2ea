"""Commands of the registry to edge nodes and devices: worded by their births, ended by what is told back."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.courier import Courier
from ingest.protocols.base import Context
from ingest.protocols.sparkplug.messages import Payload
from tests.ingest.sparkplug.made import DAY_MS, add, birth, data, death, payload
from tests.ingest.sparkplug.test_host import NODE, PUMP, Plant
from wire import clock
from wire.errors import PeerUnavailable

NODE_NAME, PUMP_NAME = "spb:Plant A/Line 1", "spb:Plant A/Line 1/Pump 7"


class Registry:
    """Gives out commands, each once, and keeps the reports."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.is_away = False

    def order(self, name: str, params: Any = None, *, to: str = PUMP_NAME, **more: Any) -> str:
        id_ = f"c{len(self.reports) + len(self.commands)}"
        deadline = clock.format_ns(clock.now_ns() + 60 * clock.NS_PER_S)
        made = {"id": id_, "device": "pump", "tenant": "default", "gateway": "gw", "names": ["tb:x", to]}
        self.commands.append(made | {"name": name, "params": params, "attempt": 1, "deadline": deadline} | more)
        return id_

    def call(self, _method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        del token
        if self.is_away:
            raise PeerUnavailable("away")
        if path.endswith(":claim"):
            found, self.commands = self.commands[: body["limit"]], self.commands[body["limit"] :]
            return {"commands": found}
        assert (path, body["protocol"]) == ("/internal/commands:report", "sparkplug")
        self.reports += body["reports"]
        return {"unknown": []}


class Line:
    """A plant, its registry and the courier between them."""

    def __init__(self, folder: Path) -> None:
        self.plant, self.registry = Plant(folder), Registry()
        self.start()

    def start(self) -> None:
        self.courier = Courier(self.registry, "sparkplug", self.plant.host, self.plant.service.hold_hosts)

    def restart(self) -> None:
        self.plant.restart()
        self.start()

    def carry(self) -> list[dict[str, Any]]:
        before = len(self.registry.reports)
        self.courier.claim(0)
        self.courier.word()
        return self.registry.reports[before:]

    def be_born(self) -> None:
        self.plant.say((NODE.format("NBIRTH"), birth(t=20.5)), (PUMP.format("DBIRTH"), device_birth(1)))


def device_birth(seq: int, speed: int = 0) -> bytes:
    made = payload(seq)
    add(made, "Set/Speed", speed, alias=3, datatype=5)
    add(made, "Set/On", value=False)
    content: bytes = made.SerializeToString()
    return content


def worded(report: dict[str, Any]) -> tuple[str, list[tuple[str, int, Any]]]:
    form = report["publish"]
    read = Payload.FromString(b64decode(form["payload"]))
    return form["topic"], [(m.name, m.alias, getattr(m, m.WhichOneof("value"))) for m in read.metrics]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.plant.host.close()
    made.plant.world.close()


def test_write_to_a_device_is_a_dcmd_and_ends_with_the_values_told_back(line: Line) -> None:
    line.be_born()
    sent = line.registry.order("write", {"Set/Speed": 80, "Set/On": True})

    report = line.carry()[0]
    line.plant.say((PUMP.format("DDATA"), alias_speed(2, 80)))
    half_way = line.carry()
    line.plant.say((PUMP.format("DDATA"), data(3, DAY_MS + 2, **{"Set/On": True})))

    assert worded(report) == (PUMP.format("DCMD"), [("", 3, 80), ("Set/On", 0, True)])
    assert (report["id"], report["attempt"], report["publish"]["qos"]) == (sent, 1, 0)
    assert report["retry_s"] >= 86_400  # a write is not repeated by itself
    assert half_way == []
    ended = {"id": sent, "device": "pump", "state": "succeeded", "result": {"Set/Speed": 80, "Set/On": True}}
    assert line.carry() == [ended]
    assert line.carry() == []


def alias_speed(seq: int, speed: int) -> bytes:
    made = payload(seq, DAY_MS + seq)
    add(made, None, speed, alias=3, datatype=0)
    content: bytes = made.SerializeToString()
    return content


def test_another_value_is_no_answer(line: Line) -> None:
    line.be_born()
    line.registry.order("write", {"Set/Speed": 80})
    line.carry()

    line.plant.say((PUMP.format("DDATA"), alias_speed(2, 79)), (NODE.format("NDATA"), data(3, **{"Set/Speed": 80})))

    assert line.carry() == []


def test_rebirth_goes_to_the_node_and_ends_with_its_birth(line: Line) -> None:
    line.be_born()
    sent = line.registry.order("rebirth")

    assert worded(line.carry()[0]) == (NODE.format("NCMD"), [("Node Control/Rebirth", 0, True)])
    line.plant.say((NODE.format("NBIRTH"), birth(0, 1, DAY_MS + 5, t=20.5)))

    assert [(each["id"], each["state"]) for each in line.carry()] == [(sent, "succeeded")]


def test_command_to_a_dead_node_waits_for_its_birth(line: Line) -> None:
    line.be_born()
    line.plant.say((NODE.format("NDEATH"), death()))
    line.registry.order("write", {"Set/Speed": 80})

    assert line.carry() == []
    line.plant.say((NODE.format("NBIRTH"), birth(0, 1, DAY_MS + 5, t=20.5)))
    assert line.carry() == []  # the node is there, its device is not
    line.plant.say((PUMP.format("DBIRTH"), device_birth(1, speed=5)))

    assert [worded(each)[0] for each in line.carry()] == [PUMP.format("DCMD")]


@pytest.mark.parametrize(
    ("name", "params", "error"),
    [
        ("write", {"Set/Speed": 300}, "out_of_range: Set/Speed: 300 in UInt8, which goes from 0 to 255"),
        ("write", {"Set/Speed": "fast"}, "bad_value: Set/Speed: UInt8 takes a whole number"),
        ("write", {"Speed": 1}, "bad_name: Speed: the birth has no metric of this name"),
        ("write", {}, 'bad_structure: params are {"metric": value}, 1 to 256 of them'),
        ("write", [1], 'unsupported: neither rebirth nor write with params {"metric": value}'),
        ("blink", {"Set/On": True}, 'unsupported: neither rebirth nor write with params {"metric": value}'),
    ],
)
def test_what_cannot_be_worded_fails_with_metric_and_limit(line: Line, name: str, params: Any, error: str) -> None:
    line.be_born()
    sent = line.registry.order(name, params)

    assert line.carry() == [{"id": sent, "device": "pump", "state": "failed", "error": error}]


def test_answer_is_waited_for_over_a_restart_and_told_once(line: Line) -> None:
    line.be_born()
    sent = line.registry.order("write", {"Set/Speed": 80})
    line.carry()
    line.restart()

    line.plant.say((PUMP.format("DDATA"), alias_speed(2, 80)))
    line.registry.is_away = True
    with pytest.raises(PeerUnavailable):
        line.courier.word()
    line.restart()
    line.registry.is_away = False

    assert [(each["id"], each["state"]) for each in line.carry()] == [(sent, "succeeded")]
    line.restart()
    assert line.carry() == []


def test_command_that_was_not_reported_is_worded_again(line: Line) -> None:
    line.be_born()
    line.registry.order("write", {"Set/Speed": 80})
    line.courier.claim(0)
    line.registry.is_away = True
    with pytest.raises(PeerUnavailable):
        line.courier.word()
    line.registry.is_away = False

    assert len(line.carry()) == 1


def test_node_of_another_gateway_is_not_told(line: Line) -> None:
    line.be_born()
    line.registry.order("write", {"Set/Speed": 80}, gateway="other")

    assert line.carry() == []


def test_device_that_lost_its_name_fails(line: Line) -> None:
    line.registry.order("rebirth", names=["tb:x"])

    assert line.carry()[0]["error"] == "bad_name: pump has no name spb:group/node"


def test_data_that_could_not_be_kept_answers_nothing_yet(line: Line) -> None:
    line.be_born()
    line.registry.order("write", {"Set/Speed": 80})
    line.carry()

    line.plant.host.decode(*line_message(line, alias_speed(2, 80)))
    line.plant.host.rollback()

    assert line.carry() == []
    line.plant.say((PUMP.format("DDATA"), alias_speed(2, 80)))
    assert len(line.carry()) == 1


def line_message(line: Line, content: bytes) -> tuple[bytes, Any]:
    sender = next(iter(line.plant.host._sessions._nodes)).sender
    return content, Context(0, topic=PUMP.format("DDATA"), transport="mqtt", sender=sender)
