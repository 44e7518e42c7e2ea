"""The figures of the whole fleet for the overview page: devices, rate, lag, quarantine, balance. Knows no Flask.

Each part comes from another service and may be missing: a page then shows what there is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from chassis.peers import Peer
from dashboard_api.hub import SENT, Hub
from dashboard_api.service import Directory
from wire.devices import TENANT
from wire.errors import HeadwaterError

FRESH_S = 1.0  # many open overviews ask the other services once a second in all
RATE_WINDOW_S = 10.0
MIN_RATE_WINDOW_S = 1.5
MAX_SAMPLES = 30
COUNTS = ("received", "accepted", "stored", "pending", "duplicates", "quarantined", "refused")


@dataclass(frozen=True, slots=True)
class Gaps:
    """Numbered readings that never came."""

    readings: int
    devices: int


@dataclass(frozen=True, slots=True)
class Balance:
    """The ledger, and what its two sums are short of; 0 and 0 when every message ended in exactly one way."""

    counts: dict[str, int | None]  # None: it cannot be told now
    lag_s: float | None = None  # age of the oldest reading that is accepted but not stored
    gaps: Gaps | None = None

    @property
    def ends_short(self) -> int:
        """Received - (accepted + quarantined + refused)."""
        return self._short("received", "accepted", "quarantined", "refused")

    @property
    def stored_short(self) -> int:
        """Accepted - (stored + pending + duplicates)."""
        return self._short("accepted", "stored", "pending", "duplicates")

    @property
    def is_balanced(self) -> bool | None:
        """Tell whether both sums hold; None: not all of it can be told."""
        if None in self.counts.values():
            return None
        return not self.ends_short and not self.stored_short

    def _short(self, whole: str, *parts: str) -> int:
        return (self.counts[whole] or 0) - sum(self.counts[part] or 0 for part in parts)


@dataclass(frozen=True, slots=True)
class Delay:
    """How long readings of one class took lately, from their receipt; seconds."""

    kind: str  # protocol/transport
    way: str  # "stored" or "sent": to the store's commit, or to a viewer of the feed
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What the overview shows; None where a service did not answer."""

    devices: int | None = None
    online: int | None = None
    rate_s: float | None = None
    lag_s: float | None = None
    balance: Balance | None = None
    rates: list[int] = field(default_factory=list)  # points of each second of the feed, oldest first
    missing: list[str] = field(default_factory=list)  # services that did not answer
    gaps: Gaps | None = None
    delays: list[Delay] | None = None  # None also in a tenant: they are those of the installation

    def to_json(self) -> dict[str, Any]:
        """Render for GET /v1/overview."""
        return {
            "devices": self.devices,
            "online": self.online,
            "rate_s": self.rate_s,
            "lag_s": self.lag_s,
            "ledger": self.balance.counts if self.balance else None,
            "balanced": self.balance.is_balanced if self.balance else None,
            "rates": self.rates,
            "missing": self.missing,
            "gaps": asdict(self.gaps) if self.gaps else None,
            "delays": None if self.delays is None else [asdict(delay) for delay in self.delays],
        }


class Fleet:
    """Gathers the figures, at most once a second for all viewers."""

    def __init__(self, directory: Directory, ingest: Peer, hub: Hub) -> None:
        self._directory = directory
        self._ingest = ingest
        self._hub = hub
        self._lock = threading.Lock()  # guards everything below
        self._known: dict[str, tuple[float, Balance]] = {}  # by tenant; as many as there are
        self._samples: deque[tuple[float, int]] = deque(maxlen=MAX_SAMPLES)  # (monotonic, received)

    def figures(self, token: str, tenant: str = TENANT) -> Figures:
        """Give the figures of a tenant, asking with the operator's own token.

        Delays are of the whole installation, so they are told in the platform's own tenant only, which also sees the
        ledger of the whole installation.
        """
        is_home = tenant == TENANT
        missing: list[str] = []
        devices = online = None
        try:
            entries = self._directory.entries(tenant).values()
            devices, online = len(entries), sum(entry.is_online for entry in entries)
        except HeadwaterError:
            missing.append("devices")
        balance = self._balance(token, tenant)
        if balance is None:
            missing.append("ingest")
        rates = self._hub.rates(tenant)
        lag_s = balance.lag_s if balance else None
        gaps = balance.gaps if balance else None
        rate_s, delays = self._rate_s(rates, is_home=is_home), self._delays() if is_home else None
        return Figures(devices, online, rate_s, lag_s, balance, rates, missing, gaps, delays)

    def _delays(self) -> list[Delay]:
        """Give the delays of each class, to the store and to viewers in turn."""
        stored = self._hub.delays()
        sent = {kind: recent._asdict() for kind, recent in SENT.recent().items()}
        return [
            Delay(kind, way, found["p50"], found["p95"], found["p99"])
            for kind in sorted(stored.keys() | sent.keys())
            for way, found in (("stored", stored.get(kind)), ("sent", sent.get(kind)))
            if found is not None
        ]

    def _balance(self, token: str, tenant: str) -> Balance | None:
        with self._lock:
            now_s = time.monotonic()
            known = self._known.get(tenant)
            if known and now_s - known[0] < FRESH_S:
                return known[1]
            try:
                ledger = self._ingest.call("GET", "/v1/ledger", token=token)
            except HeadwaterError:
                return None
            gaps = Gaps(int(ledger.get("missing", 0)), int(ledger.get("devices_with_gaps", 0)))
            balance = Balance({name: ledger.get(name, 0) for name in COUNTS}, ledger.get("lag_s"), gaps)
            self._known[tenant] = (now_s, balance)
            if tenant == TENANT:
                self._note(now_s, int(ledger.get("received", 0)))
            return balance

    def _note(self, now_s: float, received: int) -> None:
        if self._samples and received < self._samples[-1][1]:
            self._samples.clear()  # the count began anew
        self._samples.append((now_s, received))

    def _rate_s(self, rates: list[int], *, is_home: bool) -> float:
        """Messages received a second; while nobody has watched long enough, what the feed shows."""
        with self._lock:
            samples = list(self._samples) if is_home else []
        if samples:
            newest_s, newest = samples[-1]
            within = [sample for sample in samples if newest_s - sample[0] <= RATE_WINDOW_S]
            span_s = newest_s - within[0][0]
            if span_s >= MIN_RATE_WINDOW_S:
                return (newest - within[0][1]) / span_s
        recent = rates[-int(RATE_WINDOW_S) :]
        return sum(recent) / max(1, len(recent))
