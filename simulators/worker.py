"""One process of a crew (`simulators.crew`): reads its order on standard input, answers on standard output."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Work until done, or until the commands end."""
    # ctrl-C reaches the whole group of processes, and so may SIGTERM; what they mean is the parent's to say. First of
    # all: a worker that is still loading must not die of them either.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    import uvloop

    from simulators.duty import work

    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr  # a stray print must not break the messages
    uvloop.run(work(output))


if __name__ == "__main__":
    main()
