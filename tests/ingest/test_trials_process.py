"""The process that tries types: same verdicts, out of the way of ingestion, gone when nobody asks or its asker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ingest.config import IngestConfig
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.trials_main import IDLE_S, NICE, answer, open_verbs
from ingest.trials_process import TrialsProcess
from series import open_writer
from tests.ingest.intake_support import World
from tests.support.waiting import wait_until
from wire import clock
from wire.devices import DeviceType
from wire.dry_runs import Counted, Place, Slice, SliceRequest, WaitingRequest, WaitingSlice
from wire.errors import HeadwaterError, Unavailable
from wire.points import Point

S = clock.NS_PER_S
NOW_NS = 1_800_000_000 * S
PLACE = {"devices": ["d1"], "tenant": "default", "start": NOW_NS - 3600 * S, "end": NOW_NS}
SPEC = DeviceType.model_validate({"name": "g", "fields": {"t": {"max": 50}}})
JUDGE = SliceRequest.model_validate(PLACE | {"spec": SPEC})
SOON = "import ingest.trials_main as m; m.IDLE_S = 0.1; m.main()"


@pytest.fixture
def config(tmp_path: Path) -> IngestConfig:
    writer = open_writer("embedded:", tmp_path)
    writer.write([Point("d1", "telemetry", NOW_NS - at * S, {"t": float(at)}) for at in range(1, 101)])
    writer.close()
    return IngestConfig(data=tmp_path, devices_url="http://127.0.0.1:1")


@pytest.fixture
def process(config: IngestConfig) -> Iterator[TrialsProcess]:
    made = TrialsProcess(config)
    yield made
    made.close()


def children(pid: int | str = "self") -> set[int]:
    return {
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    }


def test_the_process_judges_and_has_little_priority(process) -> None:
    before = children()

    found = process.ask("judge", JUDGE, Slice)

    assert {device: (each.readings, each.refused) for device, each in found.devices.items()} == {"d1": (100, 50)}
    assert process.ask("count", Place.model_validate(PLACE), Counted).readings == 100
    (pid,) = children() - before
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
    process.close()
    assert pid not in children()


def test_what_it_refuses_is_refused_here(process) -> None:
    with pytest.raises(HeadwaterError) as refused:
        process.ask("judge", JUDGE.model_copy(update={"cursor": "x y"}), Slice)
    assert (refused.value.status, refused.value.code, refused.value.fields) == (400, "bad_request", ("cursor",))


def test_a_killed_one_is_started_anew(process) -> None:
    before = children()
    process.ask("judge", JUDGE, Slice)
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)

    assert process.ask("judge", JUDGE, Slice).devices["d1"].readings == 100


def test_it_ends_when_nobody_asks_and_starts_again(config) -> None:
    process, before = TrialsProcess(config, (sys.executable, "-c", SOON)), children()

    assert process.ask("judge", JUDGE, Slice).devices["d1"].readings == 100
    wait_until(lambda: children() <= before, what="its end, without a zombie")
    assert process.ask("judge", JUDGE, Slice).devices["d1"].readings == 100
    process.close()


def test_one_that_does_not_start_is_told(config) -> None:
    with pytest.raises(Unavailable):
        TrialsProcess(config, ("/bin/false",)).ask("judge", JUDGE, Slice)


def stand_in(program: str) -> tuple[str, ...]:
    return sys.executable, "-c", f"import os, signal, sys, time\n{program}"


STOPPED = stand_in("os.kill(os.getpid(), signal.SIGSTOP)")
HALF = stand_in("sys.stdout.write('ok {'); sys.stdout.flush(); time.sleep(60)")
ENDLESS = stand_in("while True: os.write(1, b'x' * 4096)")


@pytest.mark.parametrize("command", [STOPPED, HALF, ENDLESS])
def test_one_that_hangs_is_told_and_ended(config, command: tuple[str, ...]) -> None:
    before, long = children(), JUDGE.model_copy(update={"cursor": "x" * 200_000})
    process = TrialsProcess(config, command, patience_s=0.3)

    for _ in range(2):
        with pytest.raises(Unavailable):  # more is asked than a pipe holds
            process.ask("judge", long, Slice)
        wait_until(lambda: children() <= before, what="its end")


def test_who_comes_while_it_hangs_waits_for_its_turn_only_so_long(config) -> None:
    process, told = TrialsProcess(config, STOPPED, patience_s=0.3), list[Unavailable]()

    def ask() -> None:
        with pytest.raises(Unavailable) as refused:
            process.ask("judge", JUDGE, Slice)
        told.append(refused.value)

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()

    assert any("for others" in str(each) for each in told)
    assert len(told) == 8


def test_closing_waits_for_no_answer(config) -> None:
    process, told, before = TrialsProcess(config, STOPPED), list[str](), children()

    def ask() -> None:
        with pytest.raises(Unavailable) as refused:
            process.ask("judge", JUDGE, Slice)
        told.append(str(refused.value))

    threading.Thread(target=ask, daemon=True).start()
    wait_until(lambda: children() > before, what="its start")
    threading.Thread(target=process.close, daemon=True).start()

    wait_until(lambda: len(told) == 1 and children() <= before, what="its end")
    with pytest.raises(Unavailable):
        process.ask("judge", JUDGE, Slice)


def test_it_ends_when_its_asker_dies(config) -> None:
    command = (sys.executable, "-c", ASKER, config.model_dump_json(), JUDGE.model_dump_json())
    asker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert asker.stdout is not None
    assert asker.stdout.readline() == b"100\n"
    (pid,) = children(asker.pid)

    asker.kill()
    asker.communicate()

    wait_until(lambda: not Path(f"/proc/{pid}").exists(), IDLE_S - 1, "its end, not for idleness")


ASKER = """
import sys
from ingest.config import IngestConfig
from ingest.trials_process import TrialsProcess
from wire.dry_runs import Slice, SliceRequest
process = TrialsProcess(IngestConfig.model_validate_json(sys.argv[1]))
print(process.ask("judge", SliceRequest.model_validate_json(sys.argv[2]), Slice).devices["d1"].readings, flush=True)
sys.stdin.read()
"""


def test_what_waits_is_judged_by_what_the_registry_says_now(tmp_path) -> None:
    world = World(tmp_path)
    world.registry.put_type(name="g", version=1, fields={"t": {"max": 50}})
    world.registry.add("d1", type="g")
    device = world.gate.find(["d1"]).known["d1"]
    world.service.accept(Message(device, PROTOCOLS["json"], b'{"t":60}', clock.now_ns()))
    asked = WaitingRequest(spec=DeviceType.model_validate({"name": "g", "fields": {"t": {"max": 65}}}),
                           devices=["d1"], tenant="default")  # fmt: skip

    def judge() -> tuple[int, int]:
        outcome, _, told = answer(verbs, b"judge-waiting %b" % asked.model_dump_json().encode()).partition(b" ")
        assert outcome == b"ok"
        verdict = WaitingSlice.model_validate_json(told).devices["d1"]
        return verdict.readings, verdict.refused

    with ExitStack() as closing:
        verbs = open_verbs(IngestConfig(data=tmp_path), world.registry, closing)
        assert judge() == (1, 0)
        del world.registry.devices["d1"]
        world.registry._change("devices", "d1")
        assert judge() == (1, 1)  # it is gone
        assert answer(verbs, b"judge {").startswith(b"problem")
    world.close()
