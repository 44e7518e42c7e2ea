"""What was sent, by tenant, device type and device: for the usage that the registry keeps, and as metrics.

Knows no transport. Of devices a bounded number is held between two reports; a tenant's sums are exact all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TypeVar

from chassis.metrics import Counter

MAX_LABELS = 100  # tenants with a line of their own in the metrics; all others share one
MAX_DEVICES = 50_000  # about 330 bytes each
MANY_DEVICES = 10_000  # so many are told without waiting for the time
OTHERS = "others"
MESSAGES = Counter("headwater_ingest_tenant_messages", "Messages taken in, by tenant", ["tenant"])
READINGS = Counter("headwater_ingest_tenant_readings", "Readings in these messages, by tenant", ["tenant"])
BYTES = Counter("headwater_ingest_tenant_bytes", "Bytes of these messages as received, by tenant", ["tenant"])
UNTOLD = Counter("headwater_ingest_usage_untold", "Messages whose device is missing in the usage by device")

K = TypeVar("K")
Spent = list[int]  # messages, readings, bytes
Key = tuple[str, str]  # tenant, and device type ("": none) or device
Use = tuple[str, str, str, tuple[int, int, int]]  # tenant, device type, device, and what it spent


class Usage:
    """Counts of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below
        self._types: dict[Key, Spent] = {}
        self._devices: dict[Key, Spent] = {}
        self._labels: set[str] = set()

    def note(self, uses: Iterable[Use]) -> None:
        """Add what was taken in."""
        tenants: dict[str, Spent] = {}
        with self._lock:
            for tenant, kind, device, more in uses:
                _add(tenants, tenant, more)
                _add(self._types, (tenant, kind), more)
                self._add_device((tenant, device), more)
            for tenant, spent in tenants.items():
                label = self._label(tenant)
                for counter, amount in zip((MESSAGES, READINGS, BYTES), spent, strict=True):
                    counter.labels(label).inc(amount)

    @property
    def is_crowded(self) -> bool:
        """Tell whether so many devices are held that they should be told."""
        return len(self._devices) >= MANY_DEVICES

    def take_types(self) -> dict[Key, Spent]:
        """Give what came since the last time, by type."""
        with self._lock:
            taken, self._types = self._types, {}
        return taken

    def take_devices(self) -> dict[Key, Spent]:
        """Give what came since the last time, by device."""
        with self._lock:
            taken, self._devices = self._devices, {}
        return taken

    def put_types_back(self, taken: Mapping[Key, Spent]) -> None:
        """Keep for the next time what could not be told."""
        with self._lock:
            for key, more in taken.items():
                _add(self._types, key, more)

    def put_devices_back(self, taken: Mapping[Key, Spent]) -> None:
        """Keep for the next time what could not be told."""
        with self._lock:
            for key, more in taken.items():
                self._add_device(key, more)

    def _add_device(self, key: Key, more: Spent | tuple[int, int, int]) -> None:
        if len(self._devices) < MAX_DEVICES or key in self._devices:
            _add(self._devices, key, more)
        else:
            UNTOLD.inc(more[0])

    def _label(self, tenant: str) -> str:
        if tenant not in self._labels:
            if len(self._labels) >= MAX_LABELS:
                return OTHERS
            self._labels.add(tenant)
        return tenant


def _add(held: dict[K, Spent], key: K, more: Spent | tuple[int, int, int]) -> None:
    sums = held.get(key)
    if sums is None:
        held[key] = list(more)
        return
    sums[0] += more[0]
    sums[1] += more[1]
    sums[2] += more[2]
