"""The books of a run: counts, acknowledgement times, and the ledger that makes an acknowledgement count."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

from simulators.ledger import Ledger
from simulators.outbox import Outgoing
from simulators.stats import Durations
from simulators.tally import Tally

_COMMIT_EVERY_S = 0.1


class Journal:
    """Told by the senders what happened, on one event loop; only the syncing of the ledger runs in a thread."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._ledger = ledger
        self.sent_count = 0  # messages transmitted at least once
        self.acked_count = 0  # with a ledger: those whose acknowledgement is on disk
        self.settled_count = 0  # acknowledged or refused, on disk or not
        self.quarantined_count = 0  # those the platform answered to be in quarantine (HTTP only)
        self.errors: Counter[str] = Counter()
        self.ack_ms = Durations()
        self.last_good: Outgoing | None = None  # newest transmission, for the probe of visibility
        self._first_at = self._last_at = 0.0
        self._ending = asyncio.Event()

    def sent(self, outgoing: Outgoing) -> None:
        """Count a first transmission."""
        self.sent_count += 1
        self._first_at = self._first_at or outgoing.sent_at
        self._last_at = outgoing.sent_at
        if not outgoing.is_malformed:
            self.last_good = outgoing
        if self._ledger is not None:
            self._ledger.append(outgoing, is_ack=False)

    def acked(self, outgoing: Outgoing, *, is_quarantined: bool = False) -> None:
        """Count the first acknowledgement of a message; that of a second copy changes nothing."""
        if outgoing.is_settled:
            return
        outgoing.is_settled = True
        self.settled_count += 1
        self.quarantined_count += is_quarantined
        self._last_at = time.monotonic()
        self.ack_ms.add((self._last_at - outgoing.sent_at) * 1000)
        if self._ledger is None:
            self.acked_count += 1
        else:
            self._ledger.append(outgoing, is_ack=True)

    def refused(self, outgoing: Outgoing) -> None:
        """Count a message that the platform does not want; it stays unacknowledged."""
        self.settled_count += not outgoing.is_settled
        outgoing.is_settled = True

    def error(self, name: str) -> None:
        """Count something that went wrong, or was done again, by its name."""
        self.errors[name] += 1

    async def keep(self) -> None:
        """Sync the ledger in groups until `end`; never cancel it: a sync in a thread cannot be taken back.

        Raises:
            OSError: the ledger cannot be written; the run has to stop.
        """
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _COMMIT_EVERY_S)
            await self._commit()
        await self._commit()  # what came in while the last one was under way
        if self._ledger is not None:
            self._ledger.close()

    def end(self) -> None:
        """Let `keep` sync the rest, close the ledger and return."""
        self._ending.set()

    def tally(self) -> Tally:
        """Give what is known so far."""
        return Tally(
            sent=self.sent_count,
            acked=self.acked_count,
            settled=self.settled_count,
            quarantined=self.quarantined_count,
            errors=self.errors,
            ack_ms=self.ack_ms,
            first_at=self._first_at,
            last_at=self._last_at,
        )

    async def _commit(self) -> None:
        if self._ledger is None:
            return
        data, acks = self._ledger.take()
        if data:
            await asyncio.to_thread(self._ledger.write, data)
        self.acked_count += acks  # only now: it is on disk
