"""What each tenant has sent: for its usage at the registry, and as metrics. Knows no transport."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from chassis.metrics import Counter

MAX_LABELS = 100  # tenants with a line of their own in the metrics; all others share one
OTHERS = "others"
MESSAGES = Counter("headwater_ingest_tenant_messages", "Messages taken in, by tenant", ["tenant"])
READINGS = Counter("headwater_ingest_tenant_readings", "Readings in these messages, by tenant", ["tenant"])
BYTES = Counter("headwater_ingest_tenant_bytes", "Bytes of these messages as received, by tenant", ["tenant"])

Spent = list[int]  # messages, readings, bytes
Use = tuple[str, int, int]  # one message: tenant, readings, bytes


class Usage:
    """Counts of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._spent: dict[str, Spent] = {}
        self._labels: set[str] = set()

    def note(self, uses: Iterable[Use]) -> None:
        """Add messages that were taken in."""
        spent: dict[str, Spent] = {}
        for tenant, readings, size in uses:
            sums = spent.setdefault(tenant, [0, 0, 0])
            sums[0] += 1
            sums[1] += readings
            sums[2] += size
        with self._lock:
            for tenant, more in spent.items():
                self._add(tenant, more)
                label = self._label(tenant)
                for counter, amount in zip((MESSAGES, READINGS, BYTES), more, strict=True):
                    counter.labels(label).inc(amount)

    def take(self) -> dict[str, Spent]:
        """Give what came since the last time."""
        with self._lock:
            taken, self._spent = self._spent, {}
        return taken

    def put_back(self, taken: Mapping[str, Spent]) -> None:
        """Keep for the next time what could not be told."""
        with self._lock:
            for tenant, more in taken.items():
                self._add(tenant, more)

    def _add(self, tenant: str, more: Spent) -> None:
        held = self._spent.get(tenant)
        self._spent[tenant] = list(more) if held is None else [a + b for a, b in zip(held, more, strict=True)]

    def _label(self, tenant: str) -> str:
        if tenant not in self._labels:
            if len(self._labels) >= MAX_LABELS:
                return OTHERS
            self._labels.add(tenant)
        return tenant
