"""A process without memory ends, wherever it notices: each case is a process of its own."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from chassis.ending import EXIT_CODE, is_short

ENDS = {
    "thread_of_ours": """
from chassis.workers import Workers
def work():
    raise MemoryError
Workers().start("w", work).join(5)
""",
    "thread_that_cannot_say_why": """
import logging
from chassis.workers import Workers
def work():
    raise ValueError
logging.raiseExceptions = False
class Deaf(logging.Handler):
    def handle(self, record):
        raise SystemExit
logging.getLogger().addHandler(Deaf())
Workers().start("w", work).join(5)
""",
    "thread_without_an_owner": """
import threading
from chassis import ending
ending.watch()
def work():
    raise MemoryError
thread = threading.Thread(target=work)
thread.start()
thread.join(5)
""",
    "request": """
from chassis import web
api = web.Api()
@api.route("GET", "/v1/large", "public")
def large(call):
    raise RuntimeError from MemoryError()
edge = web.Edge("test", "x", None, dict)
web.create_app(edge, api).test_client().get("/v1/large")
""",
    "greenlet": """
import gevent
from gunicorn.workers.ggevent import GeventWorker
from chassis.gevent_worker import ProblemGeventWorker
def spawn(worker):
    def work():
        raise MemoryError
    gevent.spawn(work).join(5)
GeventWorker.run = spawn
ProblemGeventWorker.run(object.__new__(ProblemGeventWorker))
""",
}


@pytest.mark.parametrize("where", ENDS)
def test_process_without_memory_ends(where: str) -> None:
    ran = subprocess.run([sys.executable, "-c", ENDS[where]], capture_output=True, text=True, timeout=30, check=False)

    assert ran.returncode == EXIT_CODE, ran.stderr
    assert "the process ends, to be started anew" in ran.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "no"),
        RuntimeError("can't start new thread"),
        type("NoMemError", (Exception,), {})(),
    ],
)
def test_what_says_that_memory_has_run_out(error: Exception) -> None:
    assert is_short(error)


@pytest.mark.parametrize("error", [ValueError(), OSError(errno.ENOSPC, "no"), RuntimeError("no")])
def test_what_says_nothing_of_memory(error: Exception) -> None:
    assert not is_short(error)
