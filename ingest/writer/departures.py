"""Devices that were deleted from the registry: their numbers are forgotten and their `acks` topic is cleared.

Else a device added later under the same id, which counts its boots from 1 again, would be told that its readings are
there already. That holds too when it is added so soon that nobody saw the id without a device. The registry may be away
for as long as it likes; where it was left off is kept in writer.db.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from chassis import logs
from chassis.peers import Peer
from ingest.writer.gaps import EVERYTHING, BootKey
from wire.devices import Changes, LookupResult
from wire.errors import HeadwaterError

log = logs.get(__name__)
POLL_S = 2.0
LOOKUP_IDS = 5_000  # what one lookup may ask


class Place(Protocol):
    """Keeps how far the registry was read: `ingest.writer.state.WriterState`."""

    def registry_revision(self) -> int: ...
    def set_registry_revision(self, revision: int) -> None: ...
    def numbered_devices(self) -> list[str]: ...
    def outlived_boots(self, gone: Mapping[str, int]) -> list[BootKey]: ...


class Departures:
    """Follows the registry; used by one thread."""

    def __init__(
        self, registry: Peer, place: Place, forget: Callable[[Mapping[str, int]], None], is_done: Callable[[], bool]
    ) -> None:
        """Begin where it was left off.

        Args:
            registry: is asked.
            place: see there.
            forget: takes devices that are no more (`gaps.is_outlived`).
            is_done: tells whether all that was asked of `forget` has been done.
        """
        self._registry = registry
        self._place = place
        self._forget = forget
        self._is_done = is_done
        self._revision = place.registry_revision()
        self._kept = self._revision

    def poll(self) -> None:
        """Ask what changed; called each POLL_S. A registry that is away, or of another mind, is asked again."""
        if self._kept != self._revision and self._is_done():
            self._place.set_registry_revision(self._revision)
            self._kept = self._revision
        try:
            answer = self._registry.call("GET", f"/internal/changes?since={self._revision}")
            changes = Changes.model_validate(answer)
            is_anew = changes.reset or not self._revision
            gone = self._outlived(self._place.numbered_devices() if is_anew else changes.devices)
        except HeadwaterError:
            return
        if gone:
            log.info("devices_forgotten", devices=len(gone))
            self._forget(gone)
        self._revision = changes.revision

    def _outlived(self, devices: Sequence[str]) -> dict[str, int]:
        born = dict.fromkeys(devices, EVERYTHING)
        for part in _parts(devices):
            answer = self._registry.call("POST", "/internal/devices:lookup", {"ids": part})
            born |= {device.id: device.created_ns for device in LookupResult.model_validate(answer).devices}
        with_boots = {device for _, device, _ in self._place.outlived_boots(born)} if born else set()
        return {id_: until for id_, until in born.items() if until == EVERYTHING or id_ in with_boots}


def _parts(devices: Sequence[str]) -> Iterable[Sequence[str]]:
    return (devices[start : start + LOOKUP_IDS] for start in range(0, len(devices), LOOKUP_IDS))
