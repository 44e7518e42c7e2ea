"""gunicorn's gevent worker, for services that hold websockets; its refusals are problem documents."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from gevent import get_hub
from gunicorn.util import write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from chassis import ending
from chassis.refusals import Listener, as_problem


class ProblemGeventWorker(GeventWorker):  # type: ignore[misc]
    """See the module."""

    def run(self) -> None:
        """Serve until SIGTERM. A greenlet that had no memory ends the process: gevent would only print that."""
        hub: Any = get_hub()
        say = hub.handle_error

        def handle_error(context: Any, kind: Any, error: Any, trace: Any) -> None:
            ending.end_if_short(error)
            say(context, kind, error, trace)

        hub.handle_error = handle_error
        super().run()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that is wrong, or whose app failed."""
        ending.end_if_short(exc)
        said = Listener()
        super().handle_error(req, said, addr, exc)
        with suppress(OSError):
            write_nonblock(client, as_problem(b"".join(said.parts)))
