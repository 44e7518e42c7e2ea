"""What the supervisor writes to the terminal: prefixed log lines of the processes, its own news, and the welcome.

Lines go through a bounded queue to a thread of its own: a paused terminal must not stop the platform.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from typing import TextIO

from compose.config import UpConfig

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95)
QUEUE_LINES = 10_000
NAME_WIDTH = 11
OWN = "headwater"


class Console:
    """Writer of lines. Thread-safe."""

    def __init__(self, stream: TextIO, *, style: str = "auto", colours: bool = False) -> None:
        self.is_json = style == "json"
        self._stream = stream
        self._colours = colours and not self.is_json
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        self._dropped = 0
        self._names: dict[str, int] = {}
        self._thread = threading.Thread(target=self._write, name="console", daemon=True)
        self._thread.start()

    def say(self, text: str, *, level: str = "info") -> None:
        """Tell news of the supervisor itself."""
        self.line(OWN, text, level=level)

    def line(self, name: str, text: str, *, level: str = "info") -> None:
        """Pass on one line of a process."""
        try:
            self._lines.put_nowait(self._render(name, text, level))
        except queue.Full:
            self._dropped += 1  # log lines only, and the next line that fits says how many

    def close(self) -> None:
        """Write what is queued and end."""
        try:
            self._lines.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(2)

    def _render(self, name: str, text: str, level: str) -> str:
        if self.is_json:
            if text.startswith("{") and name != OWN:
                return text  # a service's own JSON line carries its name
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            return json.dumps({"time": now, "level": level, "service": name, "event": text}, ensure_ascii=False)
        label = f"{name:<{NAME_WIDTH}}"
        if self._colours:
            code = COLOURS[self._names.setdefault(name, len(self._names)) % len(COLOURS)]
            label = f"\x1b[{code}m{label}\x1b[0m"
        return f"{label} | {text}"

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            lost, self._dropped = self._dropped, 0
            more = f"{OWN} | {lost} log lines left out: the terminal did not take them\n" if lost else ""
            try:
                self._stream.write(f"{more}{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # the terminal is gone; the platform runs on


def open_console(config: UpConfig, has_no_colour: bool) -> Console:
    """Open the console on stderr."""
    return Console(sys.stderr, style=config.log_style, colours=sys.stderr.isatty() and not has_no_colour)
