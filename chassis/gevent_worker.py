"""gunicorn's gevent worker, for services that hold websockets; its refusals are problem documents."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from gunicorn.util import write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from chassis.refusals import Listener, as_problem


class ProblemGeventWorker(GeventWorker):  # type: ignore[misc]
    """See the module."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that is wrong, or whose app failed."""
        said = Listener()
        super().handle_error(req, said, addr, exc)
        with suppress(OSError):
            write_nonblock(client, as_problem(b"".join(said.parts)))
