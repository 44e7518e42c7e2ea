"""How often the broker saves: each N changes, and N grows with what it has to write. Knows neither plan nor process.

mosquitto writes all of its state at each save: messages that wait, sessions, retained messages. A fixed number would
let any backlog feed itself: with 20,000 messages waiting, a save each 100 changes costs 180 us of CPU a message
(bench/README.md). So at most BYTES_A_CHANGE are written for a change, and what a killed broker can lose grows with its
state instead.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from compose.folder import write_private

BYTES_A_CHANGE = 4096
SLACK = 4  # how far the state must shrink before saves become more frequent again
_SETTING = re.compile(r"^autosave_interval \d+$", re.MULTILINE)


def interval(least: int, state_bytes: int, now: int = 0) -> int:
    """Give the changes between two saves: `least`, doubled as often as the state asks; `now` is kept while it fits."""
    fitting = least
    while fitting * BYTES_A_CHANGE < state_bytes:
        fitting *= 2
    return now if fitting <= now <= fitting * SLACK and now * BYTES_A_CHANGE < state_bytes * SLACK else fitting


def state_bytes(state: Path) -> int:
    """Give the size of the broker's last save."""
    try:
        return state.stat().st_size
    except OSError:
        return 0


def tend(configuration: Path, state: Path, least: int) -> Callable[[int], None]:
    """Give what is to be done now and then with the broker's pid: let it save as often as its state permits."""
    now = interval(least, state_bytes(state))

    def look(pid: int) -> None:
        nonlocal now
        wanted = interval(least, state_bytes(state), now)
        if wanted == now:
            return
        text = _SETTING.sub(f"autosave_interval {wanted}", configuration.read_text())
        write_private(configuration, text)
        os.kill(pid, signal.SIGHUP)  # mosquitto reads its configuration again, and connections stay
        now = wanted

    return look
