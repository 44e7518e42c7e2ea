"""The balance sheet: what was accepted against what the writer stored, what waits, what was refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import BaseModel

from ingest.quarantine import Quarantine

ReadCounters = Callable[[], Mapping[str, float]]  # ingest.writer.state.read_counters of the data folder
ReadAccepted = Callable[[], int]  # ingest.spool.segments.accepted_total of the spool folder


class LedgerModel(BaseModel):
    """Readings since the installation began, over all ingestion services.

    accepted = stored + pending + duplicates; received = accepted + quarantined + refused. `damaged` were accepted,
    but could not be read back from the disk: it stays 0 unless a disk fails.
    """

    received: int
    accepted: int
    stored: int
    pending: int
    duplicates: int
    quarantined: int
    refused: int
    damaged: int
    lag_s: float


class DeviceLedgerModel(BaseModel):
    """What waits in the quarantine for one device, by reason code."""

    device: str
    quarantined: int
    by_code: dict[str, int]


class Ledger:
    """Reads the totals where each is kept."""

    def __init__(self, quarantine: Quarantine, read_accepted: ReadAccepted, read_counters: ReadCounters) -> None:
        self._quarantine = quarantine
        self._read_accepted = read_accepted
        self._read_counters = read_counters

    def totals(self) -> LedgerModel:
        """Give the balance; the writer's side is read first, so that nothing is stored before it was accepted."""
        written = self._read_counters()
        held = self._quarantine.totals()
        counts = {name: int(written.get(name, 0)) for name in ("stored", "duplicates", "store_refused", "damaged")}
        # What the store refused was accepted first and waits in the quarantine now: it is counted there.
        accepted = self._read_accepted() - counts["store_refused"] - counts["damaged"]
        pending = max(0, accepted - counts["stored"] - counts["duplicates"])
        return LedgerModel(
            received=accepted + held["quarantined"] + held["refused"],
            accepted=accepted,
            stored=counts["stored"],
            pending=pending,
            duplicates=counts["duplicates"],
            quarantined=held["quarantined"],
            refused=held["refused"],
            damaged=counts["damaged"],
            lag_s=float(written.get("lag_s", 0.0)),
        )

    def of_device(self, device: str) -> DeviceLedgerModel:
        """Give what waits of one device."""
        by_code = self._quarantine.count_by_code(device)
        return DeviceLedgerModel(device=device, quarantined=sum(by_code.values()), by_code=by_code)
