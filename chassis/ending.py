"""When a process must not go on: it ends at once, and whoever supervises it starts a fresh one.

After a MemoryError nobody knows what still works: a thread may have died in its own error handling, a greenlet with a
lock in its hand, and the probes may answer all the same. Ending it costs nothing that was promised: what was
acknowledged is on disk, and who has no answer sends again.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from typing import Any, NoReturn

# gunicorn's master takes this code for a worker that does not boot, and ends with all of them: they share the memory,
# a worker forked from a starved master would be starved too, and the start is counted and seen by the supervisor.
EXIT_CODE = 3
NO_MEMORY = b"out of memory: the process ends, to be started anew\n"
MAX_CAUSES = 10


def end(why: bytes) -> NoReturn:
    """End the process here and now. `why` is made beforehand: there may be no memory to make it."""
    os.write(2, why)
    os._exit(EXIT_CODE)


def end_if_short(error: object) -> None:
    """End the process when this exception, or what it came from, says that memory has run out."""
    if isinstance(error, BaseException) and is_short(error):
        end(NO_MEMORY)


def is_short(error: BaseException) -> bool:
    """Tell whether an exception, or what it came from, says that memory has run out."""
    found: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if found is None:
            return False
        is_sqlites = type(found).__name__ == "NoMemError"  # apsw's, which most processes need not load
        is_threads = isinstance(found, RuntimeError) and "start new thread" in str(found)  # its stack did not fit
        is_systems = isinstance(found, OSError) and found.errno == errno.ENOMEM
        if isinstance(found, MemoryError) or is_sqlites or is_threads or is_systems:
            return True
        found = found.__cause__ or found.__context__
    return False


def watch() -> None:
    """Look at what reaches nobody: threads without an owner, and finalizers."""
    say_thread, say_unraisable = threading.excepthook, sys.unraisablehook

    def on_thread(args: Any) -> None:
        end_if_short(args.exc_value or (args.exc_type and args.exc_type()))
        say_thread(args)

    def on_unraisable(args: Any) -> None:
        end_if_short(args.exc_value or (args.exc_type and args.exc_type()))
        say_unraisable(args)

    threading.excepthook, sys.unraisablehook = on_thread, on_unraisable
