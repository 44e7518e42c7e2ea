# ruff: noqa: N999, ARG001 - gunicorn fixes the file name and the arguments of its hooks
"""How gunicorn runs any HTTP service of the platform: `HEADWATER_SERVICE` names it, settings do the rest.

Used by `headwater serve`, and by plain `gunicorn -c compose/gunicorn.conf.py 'devices.app:create_app()'`.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import resource
import threading
import time
from typing import Any

from chassis import settings
from compose.serve import DEFAULT_PORTS, ServeConfig

_config = settings.load(ServeConfig)
_service = _config.service

if _config.processes > 1:
    # prometheus_client chooses its kind of values when it is first imported, so this comes before everything else;
    # with one worker plain values are half the price.
    from chassis.metrics import forget_process, use_folder

    os.environ.update(use_folder(_config.data.absolute() / "run" / "metrics" / _config.name))

from chassis import ending, logs  # noqa: E402 - after the choice above

ending.watch()
logs.configure(_config.name, style=_config.log_style, level=_config.log_level)

bind = f"{_config.host}:{_config.port or DEFAULT_PORTS[_service]}"
if _config.listen_fd is not None:
    bind = f"fd://{_config.listen_fd}"
workers = _config.processes
worker_class = {"dashboard": "chassis.gevent_worker.ProblemGeventWorker"}.get(
    _service, "chassis.loop_worker.LoopWorker"
)
threads = _config.threads
worker_connections = min(12_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)  # one a request of the gateway
control_socket_disable = True  # its default path is one per user: two masters would clash
proc_name = f"headwater-{_config.name}"
errorlog = None  # its lines go through the log configuration of the service: one format for all
loglevel = _config.log_level
accesslog = None
backlog = 4_096  # all that may come at once after a pause of the network
timeout = 60  # a worker that hangs this long is replaced
graceful_timeout = 2 if _service == "dashboard" else 4  # open websockets never end by themselves
keepalive = 75  # longer than the gateway keeps its side: whoever sends must not be the one who finds it closed
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - heartbeats, not on a busy disk
limit_request_line = 8_190
limit_request_fields = 64
limit_request_field_size = 8_190
forwarder_headers = ""  # no header may set SCRIPT_NAME or PATH_INFO
secure_scheme_headers: dict[str, str] = {}  # chassis.web reads the scheme, whoever sends it
forwarded_allow_ips = "*"  # it would be looked up for each request
preload_app = False  # threads of create_app must live in the worker


def on_starting(server: Any) -> None:
    """Let gunicorn's own lines reach the handlers of chassis.logs, and load the code that the workers share.

    A worker that replaces a killed one then starts in 0.1 s instead of 0.5 s, and several pay for the imports once. Not
    for the dashboard: gevent has to patch the standard library first, in its one worker.
    """
    logging.getLogger("gunicorn.error").propagate = True
    if _service != "dashboard":
        importlib.import_module(server.app.app_uri.partition(":")[0])
        gc.freeze()  # else the first collection of each worker would copy all of it


def post_worker_init(worker: Any) -> None:
    """Tell the open websockets of a stopping dashboard at once, so that they end with 1001 and not with the worker.

    The same for requests that wait at the registry: each gets its answer.
    """
    if _service not in ("dashboard", "devices"):
        return
    stopping = worker.wsgi.extensions["headwater.workers"].stopping

    def watch() -> None:
        while worker.alive:
            time.sleep(0.1)
        stopping.set()

    threading.Thread(target=watch, name="stop-watch", daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:
    """Stop the service's own threads before the worker ends."""
    workers_of_app = getattr(worker.wsgi, "extensions", {}).get("headwater.workers")
    if workers_of_app is not None:
        workers_of_app.stop()


def child_exit(server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that ended."""
    if _config.processes > 1:
        forget_process(worker.pid)
