"""Show how a run is going: one live line in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TextIO

from simulators.tally import Tally

_LIVE_S = 0.5
_PLAIN_S = 5.0
_STANDING_S = 60.0  # a fleet that runs for ever writes into somebody's log


class Progress:
    """Writes to a stream until cancelled; says something else with `say`."""

    def __init__(self, stream: TextIO, *, is_standing: bool = False) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._every_s = _LIVE_S if self._is_live else (_STANDING_S if is_standing else _PLAIN_S)
        self._last = (time.monotonic(), 0)

    async def run(self, tally: Callable[[], Tally]) -> None:
        """Show the state at its pace."""
        try:
            while True:
                await asyncio.sleep(self._every_s)
                line = self._line(tally())
                self._stream.write(f"\r\x1b[2K{line}" if self._is_live else f"{line}\n")
                self._stream.flush()
        finally:
            if self._is_live:
                self._stream.write("\n")

    def say(self, text: str) -> None:
        """Write a line of its own."""
        self._stream.write(f"\r\x1b[2K{text}\n" if self._is_live else f"{text}\n")
        self._stream.flush()

    def _line(self, tally: Tally) -> str:
        now = time.monotonic()
        (before, sent_before), self._last = self._last, (now, tally.sent)
        rate = (tally.sent - sent_before) / max(now - before, 0.001)
        line = (
            f"sent {tally.sent:,}  acked {tally.acked:,}  {rate:,.0f}/s  waiting {tally.waiting:,}"
            f"  reconnects {tally.errors['reconnects']:,}"
        )
        others = sum(tally.errors.values()) - tally.errors["reconnects"]
        p99 = tally.ack_ms.percentile(0.99)
        return (
            line + (f"  errors {others:,}" if others else "") + (f"  ack p99 {p99:.1f} ms" if p99 is not None else "")
        )
