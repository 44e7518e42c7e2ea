"""Opening what the verbs of ingestion work with: the files that its processes share, and the way to the registry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from chassis.peers import Peer
from ingest.codecs import Codecs
from ingest.config import IngestConfig
from ingest.division import Division
from ingest.downlinks import Downlinks
from ingest.field_types import FieldTypes
from ingest.gate import Gate
from ingest.intake import Intake
from ingest.ports import Commit, Ports
from ingest.protocols import SERVICES
from ingest.quarantine import Quarantine
from ingest.rates import RateLimits
from ingest.reports import Reports
from wire.devices import Codec

WITH_DOWNLINKS = "lorawan"
FIELD_TYPES = "fieldtypes.db"


def open_ports(
    config: IngestConfig, registry: Peer, open_commit: Callable[[ExitStack], Commit]
) -> tuple[Ports, ExitStack]:
    """Open all of it; `open_commit` says what keeps readings. Closing the stack closes it."""
    with ExitStack() as closing:
        field_types = FieldTypes(_field_types_file(config.data / "ingest"))
        closing.callback(field_types.close)
        bounds = {"limit_bytes": config.quarantine_limit_bytes, "limit_entries": config.quarantine_limit_entries}
        quarantine = Quarantine(config.data / "quarantine.db", **bounds)
        closing.callback(quarantine.close)
        commit = open_commit(closing)
        rates = RateLimits(config.device_rate_limit, config.tenant_rate_limit)
        gate = Gate(registry, rates.limit_tenants)
        codecs = Codecs()
        closing.callback(codecs.close)
        downlinks = _open_downlinks(config, codecs, gate, closing)
        intake = Intake(field_types, Division(gate, rates), codecs, downlinks)
        ports = Ports(gate, intake, commit, quarantine, Reports(registry), rates, downlinks)
        return ports, closing.pop_all()
    raise AssertionError


def _open_downlinks(config: IngestConfig, codecs: Codecs, gate: Gate, closing: ExitStack) -> Downlinks | None:
    """Open what words commands for devices whose messages need no order."""
    if config.protocol != WITH_DOWNLINKS:
        return None

    def codec_of(device_id: str) -> Codec | None:
        device = gate.find({device_id}).known.get(device_id)
        checker = gate.checker_of(device) if device is not None else None
        return checker.spec.codec if checker is not None else None

    downlinks = Downlinks(config.data / "ingest" / "lorawan.db", codecs, codec_of)
    closing.callback(downlinks.close)
    return downlinks


def _field_types_file(folder: Path) -> Path:
    """Give the file that all ingestion services share; once each had its own, of which only that of json was used."""
    folder.mkdir(parents=True, exist_ok=True)
    shared, before = folder / FIELD_TYPES, folder / SERVICES[0] / FIELD_TYPES
    for suffix in ("-wal", "-shm", "") if before.exists() and not shared.exists() else ():
        with suppress(FileNotFoundError):
            Path(f"{before}{suffix}").rename(f"{shared}{suffix}")
    return shared
