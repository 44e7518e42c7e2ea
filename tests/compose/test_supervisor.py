"""The supervisor with small real processes in the places of the platform's."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compose.standins import Supervised, is_alive, stand_in
from tests.support.waiting import wait_until

Start = Callable[..., Supervised]


def test_processes_start_after_those_they_need(supervise: Start) -> None:
    one = stand_in("one", delay=0.5)
    supervised = supervise(one, stand_in("two", after=["one"]))

    wait_until(lambda: supervised.record("one").get("state") == "starting")
    before = supervised.record("two")["state"]
    supervised.wait_ready()

    assert before == "waiting"
    assert supervised.record("two")["state"] == "running"
    assert supervised.state()["ready"] is True


def test_ready_process_is_tended_with_its_pid(supervise: Start) -> None:
    supervised = supervise(stand_in("one"))
    supervised.wait_ready()
    tended = supervised.folder / "run" / "tended"

    wait_until(lambda: tended.exists() and tended.read_text() == str(supervised.record("one")["pid"]))


def test_pid_files_name_the_processes(supervise: Start) -> None:
    supervised = supervise(stand_in("one"))
    supervised.wait_ready()

    pid = int((supervised.folder / "run" / "one.pid").read_text())

    assert pid == supervised.record("one")["pid"]
    assert supervised.finish()[0] == 0
    assert not (supervised.folder / "run" / "one.pid").exists()


def test_killed_process_comes_back(supervise: Start) -> None:
    supervised = supervise(stand_in("one"), stand_in("two"))
    supervised.wait_ready()
    first = supervised.record("one")["pid"]

    os.kill(first, signal.SIGKILL)

    again = wait_until(lambda: (r := supervised.record("one"))["state"] == "running" and r["restarts"] == 1 and r)
    assert again["pid"] != first
    assert supervised.record("two")["restarts"] == 0
    assert "one was killed by SIGKILL" in supervised.finish()[1]


def test_process_that_answers_nothing_any_more_is_replaced(supervise: Start) -> None:
    supervised = supervise(stand_in("one", patience_s=2.4), stand_in("two", patience_s=2.4))
    supervised.wait_ready()
    first = supervised.record("one")["pid"]

    os.kill(first, signal.SIGSTOP)

    again = wait_until(
        lambda: (r := supervised.record("one"))["state"] == "running" and r["restarts"] == 1 and r, 60, "it is back"
    )
    assert again["pid"] != first
    assert supervised.record("two")["restarts"] == 0
    assert "one answers nothing" in supervised.finish()[1]


def test_workers_of_a_killed_master_are_ended(supervise: Start) -> None:
    supervised = supervise(stand_in("one"))
    supervised.wait_ready()
    master, worker = sorted(wait_until(lambda: len(found := supervised.session("one")) == 2 and found))

    os.kill(master, signal.SIGKILL)
    wait_until(lambda: supervised.record("one")["restarts"] == 1 and supervised.record("one")["state"] == "running")

    assert not is_alive(worker)


def test_process_on_demand_starts_with_its_first_connection_and_answers_it(supervise: Start) -> None:
    spec = stand_in("rare", on_demand=True, is_vital=False)
    supervised = supervise(stand_in("one"), spec)
    supervised.wait_ready()
    assert supervised.record("rare")["state"] == "idle"
    assert supervised.record("rare")["pid"] is None

    assert ask(spec["ready"]) == 200

    wait_until(lambda: supervised.record("rare")["state"] == "running")


def test_connections_wait_while_a_process_on_demand_is_replaced(supervise: Start) -> None:
    spec = stand_in("rare", on_demand=True, is_vital=False)
    supervised = supervise(stand_in("one"), spec)
    supervised.wait_ready()
    ask(spec["ready"])
    wait_until(lambda: supervised.record("rare")["state"] == "running")
    master, worker = sorted(wait_until(lambda: len(found := supervised.session("rare")) == 2 and found))

    os.kill(master, signal.SIGKILL)

    assert ask(spec["ready"]) == 200
    wait_until(lambda: supervised.record("rare")["restarts"] == 1)
    assert not is_alive(worker)


def test_taken_port_of_a_process_on_demand_is_told(supervise: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        code, errors = supervise(stand_in("one"), stand_in("rare", is_vital=False, listen=host)).wait_end()

    assert code == 1
    assert f"rare cannot listen on {host}" in errors


def ask(url: str) -> int:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return int(answer.status)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_all_and_leaves_no_orphan(supervise: Start, number: int) -> None:
    supervised = supervise(stand_in("one"), stand_in("two", stage=1))
    supervised.wait_ready()
    pids = supervised.session("one") + supervised.session("two")

    began = time.monotonic()
    code, _ = supervised.finish(number)

    assert code == 0
    assert time.monotonic() - began < 10
    assert [pid for pid in pids if is_alive(pid)] == []
    assert {record["state"] for record in supervised.state()["processes"]} == {"stopped"}


def test_process_that_ignores_sigterm_is_killed_in_time(supervise: Start) -> None:
    supervised = supervise(stand_in("deaf", stubborn=True))
    supervised.wait_ready()
    pids = supervised.session("deaf")

    began = time.monotonic()
    supervised.finish()

    assert time.monotonic() - began < 10
    assert [pid for pid in pids if is_alive(pid)] == []


def test_second_signal_stops_without_grace(supervise: Start) -> None:
    supervised = supervise(stand_in("deaf", stubborn=True))
    supervised.wait_ready()
    supervised.process.send_signal(signal.SIGTERM)
    wait_until(supervised.state)

    began = time.monotonic()
    supervised.finish()

    assert time.monotonic() - began < 10


def test_killed_supervisor_takes_its_processes_along(supervise: Start) -> None:
    supervised = supervise(stand_in("one"), stand_in("two"))
    supervised.wait_ready()
    leaders = [supervised.record(name)["pid"] for name in ("one", "two")]

    supervised.process.kill()

    wait_until(lambda: not any(is_alive(pid) for pid in leaders))


def test_next_start_ends_what_a_killed_one_left(supervise: Start) -> None:
    deaf = stand_in("deaf", stubborn=True)
    supervised = supervise(deaf)
    supervised.wait_ready()
    pids = wait_until(lambda: len(found := supervised.session("deaf")) == 2 and found)
    supervised.process.kill()
    supervised.process.wait()

    again = supervise(deaf)  # the same port, which the leftover holds
    again.wait_ready()

    assert [pid for pid in pids if is_alive(pid)] == []
    assert again.record("deaf")["pid"] not in pids


def test_leftover_workers_without_their_master_are_found(supervise: Start) -> None:
    deaf = stand_in("deaf", stubborn=True)
    supervised = supervise(deaf)
    supervised.wait_ready()
    master, worker = sorted(wait_until(lambda: len(found := supervised.session("deaf")) == 2 and found))
    supervised.process.kill()
    os.kill(master, signal.SIGKILL)
    supervised.process.wait()

    supervise(deaf).wait_ready()

    assert not is_alive(worker)


def test_process_that_never_starts_fails_the_start(supervise: Start) -> None:
    broken = {"name": "broken", "argv": [sys.executable, "-c", "raise SystemExit('no such table')"]}
    supervised = supervise(stand_in("one"), broken | {"ready": "http://127.0.0.1:9/readyz"})

    supervised.process.wait(30)

    assert supervised.process.returncode == 1
    assert supervised.process.stderr is not None
    errors = supervised.process.stderr.read()
    assert "broken      | no such table" in errors
    assert "broken does not start" in errors


def test_missing_program_is_named(supervise: Start) -> None:
    supervised = supervise({"name": "gone", "argv": ["/nonexistent/program"]})

    supervised.process.wait(30)

    assert supervised.process.returncode == 1
    assert supervised.process.stderr is not None
    assert "gone cannot be started" in supervised.process.stderr.read()


def test_second_start_on_the_same_folder_is_refused(supervise: Start, tmp_path: Path) -> None:
    first = supervise(stand_in("one"))
    first.wait_ready()

    second = supervise(stand_in("two"))
    second.process.wait(30)

    assert second.process.returncode == 1
    assert second.process.stderr is not None
    assert (
        f"already runs on the data folder {tmp_path / 'data'} (pid {first.process.pid})" in second.process.stderr.read()
    )


def test_long_and_endless_lines_do_not_stop_the_output(supervise: Start) -> None:
    chatter = "import sys,time\nfor i in range(3): sys.stdout.write('x'*200000); print(i, flush=True)\ntime.sleep(60)"
    supervised = supervise({"name": "chatter", "argv": [sys.executable, "-S", "-c", chatter]}, stand_in("one"))
    supervised.wait_ready()

    assert supervised.finish()[0] == 0
