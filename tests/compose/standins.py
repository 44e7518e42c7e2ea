"""Stand-ins for the platform's processes, and a supervisor that runs outside of the test's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from compose import ports

ROOT = Path(__file__).resolve().parents[2]

# A process that answers 200 after `delay` seconds, forks one child that shares its socket (as gunicorn's and nginx'
# workers do) and ends after it, and obeys SIGTERM; a stubborn one does neither.
STAND_IN = """
import http.server, os, signal, socket, sys, threading, time
port, delay, stubborn = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1"
listening = os.environ.get("HEADWATER_LISTEN_FD")
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *words): pass
server = http.server.HTTPServer(("127.0.0.1", port), Answer, bind_and_activate=not listening)
if listening:
    server.socket = socket.socket(fileno=int(listening))
print("stand-in listens", flush=True)
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
master = os.getpid()
if os.fork() == 0:
    while stubborn or os.getppid() == master:
        time.sleep(0.2)
    os._exit(0)
time.sleep(delay)
server.serve_forever()
"""

SUPERVISE = """
import asyncio, json, os, sys
from pathlib import Path
from compose import procfs, state
from compose.child import Spec
from compose.console import Console
from compose.folder import Folder
from compose.supervisor import Supervisor, clear_leftovers
folder = Folder(Path(sys.argv[1])); folder.prepare(); folder.hold()
clear_leftovers(folder)
specs = [Spec(**given, env=dict(os.environ), tend=lambda pid: (folder.run / "tended").write_text(str(pid)))
    for given in json.loads(sys.argv[2])]
console = Console(sys.stderr)
shown = state.State(supervisor_pid=os.getpid(), boot_id=procfs.boot_id(), url="u", near_url="u", mqtt="m")
supervisor = Supervisor(specs, folder, shown, console)
code = asyncio.run(supervisor.run(lambda seconds: print("READY", flush=True)))
if supervisor.failure: console.say(supervisor.failure)
console.close()
sys.exit(code)
"""


def stand_in(
    name: str, *, delay: float = 0.0, stubborn: bool = False, on_demand: bool = False, **more: Any
) -> dict[str, Any]:
    """Specify a stand-in process."""
    port = ports.pick()
    more |= {"listen": f"127.0.0.1:{port}"} if on_demand else {}
    argv = [sys.executable, "-S", "-c", STAND_IN, str(port), str(delay), "1" if stubborn else "0"]
    return {"name": name, "argv": argv, "ready": f"http://127.0.0.1:{port}/readyz"} | more


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, specs: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, str(folder), json.dumps(specs)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "READY"

    def state(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            return dict(json.loads((self.folder / "run" / "state.json").read_text()))
        return {"processes": []}

    def record(self, name: str) -> dict[str, Any]:
        return next((dict(r) for r in self.state()["processes"] if r["name"] == name), {})

    def session(self, name: str) -> list[int]:
        """Pids of a process and of what it started."""
        leader = self.record(name)["pid"]
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        return [pid for pid in pids if _session_of(pid) == leader]

    def finish(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors

    def wait_end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.communicate(timeout=15)
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that is only not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid) if is_alive(pid) else 0
    except OSError:
        return 0
