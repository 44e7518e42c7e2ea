"""Whether a version of a device type may come into force: compatibility, a dry run on real data, a first proposal.

The dry run is made by ingestion, whose code judges what comes in; the registry says of which devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

from chassis.peers import Peer
from devices.rows import Who
from devices.types.codecs import demand_runnable
from devices.types.compare import compare, is_compatible
from devices.types.learn import propose
from devices.types.rules import demand_sound
from devices.types.service import DeviceTypes, demand_name
from wire.descriptions import FieldDescription
from wire.devices import DeviceType, DeviceTypeSpec
from wire.errors import HeadwaterError, NotFound, Unprocessable
from wire.schemas import (
    CheckReport,
    CheckRequest,
    DryRun,
    Learned,
    LearnRequest,
    Observation,
    ObserveRequest,
    TryRequest,
    TypeDraft,
)

MAX_DEVICES = 10_000  # of a type that one trial looks at


class DeviceIds(Protocol):
    """Knows which devices have a type; see `devices.types.store.TypeStore`."""

    def devices_of(self, tenant: str, name: str, limit: int) -> Sequence[str]: ...


class Descriptions(Protocol):
    """Knows what devices told of their fields; see `devices.descriptions.store.DescriptionStore`."""

    def of(self, tenant: str, devices: Sequence[str]) -> Mapping[str, list[FieldDescription]]: ...


class Checks:
    """Checks and proposals; thread-safe."""

    def __init__(self, types: DeviceTypes, devices: DeviceIds, ingest: Peer, descriptions: Descriptions) -> None:
        self._descriptions = descriptions
        self._types = types
        self._devices = devices
        self._ingest = ingest

    def check(self, tenant: str, name: str, wanted: CheckRequest) -> CheckReport:
        """Compare a spec with the version in force, or another, and try it on real data.

        Without the dry run, because ingestion or the store is away, the comparison is given alone and says so.

        Raises:
            NotFound: no such version.
            Unprocessable: both a spec and a version are given, or none; or the spec contradicts itself.
        """
        name = demand_name(name)
        spec = self._types.one_of(tenant, name, wanted.spec, wanted.version)
        demand_sound(spec)
        demand_runnable(spec)
        before_number, before = self._before(tenant, name, wanted.against)
        changes = compare(before, spec)
        dry_run, note = self._try(tenant, name, spec, wanted)
        return CheckReport(
            name=name, before=before_number, after=wanted.version, compatible=is_compatible(changes), changes=changes,
            traffic=dry_run.traffic, quarantine=dry_run.quarantine, note=note,
        )  # fmt: skip

    def learn(self, tenant: str, name: str, wanted: LearnRequest, who: Who) -> Learned:
        """Propose a version from what devices sent, as a draft.

        Raises:
            Unprocessable: nothing was sent.
            PeerUnavailable: ingestion is away.
        """
        name = demand_name(name)
        devices = list(wanted.devices or self._devices.devices_of(tenant, name, MAX_DEVICES))
        asked = ObserveRequest(devices=devices, tenant=tenant, hours=wanted.hours)
        seen = Observation.model_validate(self._call("/internal/types:observe", asked.model_dump(mode="json")))
        if not seen.readings:
            whom = f"{len(devices)} devices" if devices else f"no device has the type {name}"
            raise Unprocessable(f"nothing is stored of the last {wanted.hours:g} hours ({whom})", code="nothing_seen")
        told = chain.from_iterable(self._descriptions.of(tenant, devices).values())
        draft = TypeDraft(spec=propose(seen, told), note=wanted.note)
        made = self._types.draft(tenant, name, draft, who, origin="learned")
        return Learned(draft=made, readings=seen.readings, devices=seen.devices, complete=seen.complete)

    def _before(self, tenant: str, name: str, against: int | None) -> tuple[int | None, DeviceTypeSpec]:
        """Give what is compared with; a type that is not in force yet is compared with no rules at all."""
        if against is None:
            try:
                against = self._types.find(tenant, name).version
            except NotFound:
                return None, DeviceTypeSpec()
        return against, self._types.version(tenant, name, against).spec

    def _try(self, tenant: str, name: str, spec: DeviceTypeSpec, wanted: CheckRequest) -> tuple[DryRun, str]:
        devices = list(wanted.devices or self._devices.devices_of(tenant, name, MAX_DEVICES))
        tried = DeviceType(name=name, **spec.model_dump())
        asked = TryRequest(spec=tried, devices=devices, tenant=tenant, hours=wanted.hours)
        try:
            found = self._call("/internal/types:try", asked.model_dump(mode="json"))
        except HeadwaterError as error:
            return DryRun(), f"no dry run: {error.detail}"
        is_cut = wanted.devices is None and len(devices) == MAX_DEVICES
        return DryRun.model_validate(found), f"of the first {MAX_DEVICES} devices only" if is_cut else ""

    def _call(self, path: str, body: Any) -> Any:
        return self._ingest.call("POST", path, body)
