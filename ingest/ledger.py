"""The balance sheet: what was accepted against what the writer stored, what waits, is refused or missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import BaseModel

from ingest.quarantine import Quarantine
from ingest.writer.gaps import Boot
from ingest.writer.state import BootAccount, DeviceBoots, TenantAccount
from wire import clock
from wire.points import TimeNs

ReadCounters = Callable[[], Mapping[str, float]]  # ingest.writer.state.read_counters of the data folder
ReadAccepted = Callable[[], int]  # ingest.spool.segments.accepted_total of the spool folder
ReadBoots = Callable[[str, str], DeviceBoots]  # ingest.writer.state.read_boots of the data folder: device, tenant
ReadTenant = Callable[[str], TenantAccount]  # ingest.writer.state.read_tenant of the data folder
SHOWN_SPANS = 32


class LedgerModel(BaseModel):
    """Readings since the installation began, over all ingestion services.

    accepted = stored + pending + duplicates; received = accepted + quarantined + refused. `damaged` were accepted,
    but could not be read back from the disk: it stays 0 unless a disk fails. `missing` were numbered by their devices
    and never came; `devices_with_gaps` is how many devices that concerns.
    """

    received: int
    accepted: int
    stored: int
    pending: int
    duplicates: int
    quarantined: int
    refused: int
    damaged: int
    missing: int
    devices_with_gaps: int
    lag_s: float


class TenantLedgerModel(BaseModel):
    """Readings of one tenant, over all ingestion services; the sums are those of the installation.

    What waits is counted in the spools. `pending`, and with it `received`, `accepted` and `lag_s`, is null while that
    cannot be: not all of a long backlog was counted yet, or what waits is damaged. What was stored, came twice or
    was refused before `since`, when the count by tenant began, is in no tenant's ledger; null: it has not begun.
    """

    tenant: str
    since: TimeNs | None
    received: int | None
    accepted: int | None
    stored: int
    pending: int | None
    duplicates: int
    quarantined: int
    refused: int
    missing: int
    devices_with_gaps: int
    lag_s: float | None


class BootModel(BaseModel):
    """The numbers of one boot. A number is missing when higher ones came and it did not within 5 s."""

    boot_id: str
    is_current: bool  # of the boots heard of, it began last
    first: int  # lowest number that came
    contiguous_to: int  # from `first` up to here nothing is missing
    newest: int
    missing: int
    missing_ranges: list[tuple[int, int]]  # the oldest of them, first and last number
    is_truncated: bool  # there are more of them than listed, or so many that the oldest were forgotten
    duplicates: int
    restarts: int  # times the device counted anew without a new boot_id
    jumps: int  # leaps too wide to be a loss; not in `missing`
    began: TimeNs
    seen: TimeNs


class DroppedBootsModel(BaseModel):
    """What is left of boots beyond those that are kept of a device."""

    boots: int
    missing: int
    duplicates: int


class DeviceLedgerModel(BaseModel):
    """What of one device waits in the quarantine, and what is missing or came twice of what it numbered."""

    device: str
    quarantined: int
    by_code: dict[str, int]
    missing: int
    duplicates: int
    boots: list[BootModel]  # the one heard of last first
    dropped: DroppedBootsModel

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is known of the device here."""
        return not (self.quarantined or self.boots or self.dropped.boots)


class Ledger:
    """Reads the totals where each is kept."""

    def __init__(
        self,
        quarantine: Quarantine,
        read_accepted: ReadAccepted,
        read_counters: ReadCounters,
        read_boots: ReadBoots,
        read_tenant: ReadTenant,
    ) -> None:
        self._quarantine = quarantine
        self._read_accepted = read_accepted
        self._read_counters = read_counters
        self._read_boots = read_boots
        self._read_tenant = read_tenant

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
            missing=int(written.get("missing", 0)),
            devices_with_gaps=int(written.get("devices_with_gaps", 0)),
            lag_s=float(written.get("lag_s", 0.0)),
        )

    def of_tenant(self, tenant: str) -> TenantLedgerModel:
        """Give the balance of one tenant; the writer's side first, as `totals` does."""
        found = self._read_tenant(tenant)
        quarantined, refused = self._quarantine.totals_of(tenant)
        done, oldest_ns = found.done, found.oldest_ns
        accepted = found.pending + sum(done)
        lag_s = 0.0 if oldest_ns is None else max(0.0, (clock.now_ns() - oldest_ns) / clock.NS_PER_S)
        return TenantLedgerModel(
            tenant=tenant,
            since=found.since_ns,
            received=accepted + quarantined + refused if found.is_known else None,
            accepted=accepted if found.is_known else None,
            stored=done.stored,
            pending=found.pending if found.is_known else None,
            duplicates=done.duplicates,
            quarantined=quarantined,
            refused=refused,
            missing=found.missing,
            devices_with_gaps=found.devices_with_gaps,
            lag_s=lag_s if found.is_known else None,
        )

    def of_device(self, device: str, tenant: str) -> DeviceLedgerModel:
        """Give what waits of one device, and the account of its boots."""
        by_code = self._quarantine.count_by_code(device, tenant=tenant)
        found = self._read_boots(device, tenant)
        current = max(found.boots, key=lambda account: account.boot.began_ns, default=None)
        boots = [_shown(account, is_current=account is current) for account in found.boots]
        dropped = DroppedBootsModel(
            boots=found.dropped_boots, missing=found.dropped_missing, duplicates=found.dropped_duplicates
        )
        return DeviceLedgerModel(
            device=device,
            quarantined=sum(by_code.values()),
            by_code=by_code,
            missing=sum(boot.missing for boot in boots) + dropped.missing,
            duplicates=sum(boot.duplicates for boot in boots) + dropped.duplicates,
            boots=boots,
            dropped=dropped,
        )


def _shown(account: BootAccount, *, is_current: bool) -> BootModel:
    boot: Boot = account.boot
    spans = boot.missing_spans()
    return BootModel(
        boot_id=account.boot_id, is_current=is_current, first=boot.first, contiguous_to=boot.contiguous_to,
        newest=boot.highs[-1], missing=boot.missing(), missing_ranges=spans[:SHOWN_SPANS],
        is_truncated=len(spans) > SHOWN_SPANS or boot.forgotten > 0, duplicates=boot.duplicates,
        restarts=boot.restarts, jumps=boot.jumps(), began=boot.began_ns, seen=account.seen_ns,
    )  # fmt: skip
