from __future__ import annotations

import subprocess
import sys

from dashboard_api.offload import Inline, choose

PATCHED = """
from gevent import monkey
monkey.patch_all()
import threading, time, gevent
from dashboard_api.offload import GeventThreads, choose
offload = choose()
assert isinstance(offload, GeventThreads), offload

ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)
gevent.spawn(tick)
native_sleep = monkey.get_original("time", "sleep")
assert offload.run(lambda: (native_sleep(0.3), 7)[1]) == 7
assert len(ticks) > 10, len(ticks)

try:
    offload.run(lambda: 1 / 0)
except ZeroDivisionError:
    print("kept the loop going")
"""


def test_ordinary_threads_need_no_offload():
    assert isinstance(choose(), Inline)
    assert Inline().run(lambda: 5) == 5


def test_blocking_work_does_not_stop_the_gevent_loop():
    # monkey patching cannot be undone, so it happens in a process of its own
    done = subprocess.run([sys.executable, "-c", PATCHED], capture_output=True, text=True, timeout=60, check=False)

    assert done.stdout.strip() == "kept the loop going", done.stderr
    assert done.stderr == "", "what is raised belongs to the caller, not to the log"
