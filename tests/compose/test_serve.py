"""A service under gunicorn, as `headwater serve` runs it, with a tiny app in the service's place."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compose import ports, serve
from tests.compose.standins import is_alive
from tests.support.waiting import wait_until

CONF = str(serve.GUNICORN_CONF)
APP = """
import os, threading
from pathlib import Path
from chassis.metrics import Counter
from chassis.workers import Workers
CALLS = Counter("tiny_calls", "Calls")
LOADED_BY = os.getpid()
class App:
    def __init__(self):
        self.workers = Workers()
        self.workers.start("loop", self.workers.stopping.wait)
        self.extensions = {"headwater.workers": self.workers}
    def __call__(self, environ, start):
        CALLS.inc()
        start("200 OK", [("Content-Type", "text/plain")])
        told = [environ["PATH_INFO"], environ["SCRIPT_NAME"], os.environ.get("PROMETHEUS_MULTIPROC_DIR", "-"),
                str(os.getppid()), threading.current_thread().name, str(LOADED_BY)]
        return ["\\n".join(told).encode()]
def create_app():
    app = App()
    stop = app.workers.stop
    app.workers.stop = lambda: (stop(), Path(os.environ["MARK"]).write_text("stopped"))
    return app
"""
Start = Callable[..., "Served"]


class Served:
    """A gunicorn master."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        (folder / "tiny.py").write_text(APP)
        self.port, self.mark = ports.pick(), folder / "mark"
        env = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
        env |= {"HEADWATER_SERVICE": "devices", "HEADWATER_PORT": str(self.port), "HEADWATER_DATA": str(folder)}
        env |= {"MARK": str(self.mark), "PYTHONPATH": str(folder)} | environ
        argv = [sys.executable, "-m", "gunicorn", "-c", CONF, "tiny:create_app()"]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log)
        wait_until(lambda: not ports.is_free("127.0.0.1", self.port))

    def get(self, path: str = "/", **headers: str) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().read().decode().split("\n")
        finally:
            connection.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Served] = []

    def begin(**environ: str) -> Served:
        started.append(Served(tmp_path, environ))
        return started[-1]

    yield begin
    for served in started:
        if served.process.poll() is None:
            served.process.terminate()
            served.process.wait(15)


def test_service_answers_and_its_threads_are_stopped(start: Start) -> None:
    served = start()

    path, script, metrics_folder, *_ = served.get("/a/b")
    served.process.send_signal(signal.SIGTERM)
    began = time.monotonic()

    assert served.process.wait(10) == 0
    assert time.monotonic() - began < 6
    assert (path, script, metrics_folder) == ("/a/b", "", "-")
    assert served.mark.read_text() == "stopped"


def test_no_header_moves_a_request_to_another_path(start: Start) -> None:
    path, script, *_ = start().get("/a", SCRIPT_NAME="/a", PATH_INFO="/internal/batch")

    assert (path, script) == ("/a", "")


def test_master_loads_the_code_for_its_workers(start: Start) -> None:
    served = start()
    gevent = start(HEADWATER_SERVICE="dashboard")

    assert int(served.get()[5]) == served.process.pid
    assert int(gevent.get()[5]) != gevent.process.pid, "before its worker has patched the standard library"


def test_two_masters_of_one_user_live_together(start: Start, tmp_path: Path) -> None:
    first, second = start(), start(HEADWATER_SERVICE="ingest")

    assert first.get()[0] == second.get()[0] == "/"


def test_several_workers_count_together_in_an_emptied_folder(start: Start, tmp_path: Path) -> None:
    old = tmp_path / "run" / "metrics" / "devices" / "counter_1.db"
    old.parent.mkdir(parents=True)
    old.write_text("stale")

    served = start(HEADWATER_WORKERS="2")

    assert served.get()[2] == str(old.parent)
    assert not old.exists()


def test_dashboard_runs_on_gevent(start: Start) -> None:
    served = start(HEADWATER_SERVICE="dashboard", HEADWATER_LOG_STYLE="text")

    served.get()

    assert "Using worker: chassis.gevent_worker" in served.log.read_text()


@pytest.mark.parametrize("service", ["dashboard", "devices", "ingest"])
def test_too_many_headers_are_a_problem_document(start: Start, service: str) -> None:
    served = start(HEADWATER_SERVICE=service)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)

    connection.request("GET", "/", headers={f"X-{number}": "1" for number in range(65)})
    answer = connection.getresponse()

    assert (answer.status, answer.headers["Content-Type"]) == (431, "application/problem+json")
    assert json.loads(answer.read())["code"] == "header_too_large"
    connection.close()


def test_log_lines_have_one_format(start: Start) -> None:
    served = start(HEADWATER_LOG_STYLE="json")
    served.get()

    lines = served.log.read_text().splitlines()

    assert lines
    assert all(line.startswith('{"time":') and '"service": "devices"' in line for line in lines)


def test_worker_ends_with_its_master(start: Start) -> None:
    served = start()
    worker = wait_until(lambda: [pid for pid in _children(served.process.pid) if is_alive(pid)])

    served.process.kill()
    served.process.wait()

    wait_until(lambda: not any(is_alive(pid) for pid in worker))


def test_firmware_is_said_to_be_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.serve("firmware") == 2
    assert capsys.readouterr().err == "headwater: the firmware service is not part of this version yet\n"


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.parametrize(("service", "processes"), [("ingest", 3), ("devices", 3), ("dashboard", 1)])
def test_dashboard_is_always_one_process(service: str, processes: int) -> None:
    assert serve.ServeConfig(service=service, workers=3).processes == processes
