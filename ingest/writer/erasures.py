"""Devices whose data must go, as the registry asks: out of the quarantine, then out of the store and the media.

The order keeps anything from coming back: a device sends nothing any more, then nothing of it waits that could be
replayed, then all that is on its way has been stored, then the store is cleared. Doing it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from chassis import logs
from chassis.peers import Peer
from ingest.writer.gaps import EVERYTHING
from wire import clock
from wire.clock import NS_PER_S
from wire.erasures import Erased, Erasure, ErasureList
from wire.errors import HeadwaterError, Unavailable

log = logs.get(__name__)
POLL_S = 2.0
MARGIN_NS = 5 * NS_PER_S  # until every gate has heard that a device may not send, and has answered what it had begun


class Quarantine(Protocol):
    """What waits; see `ingest.quarantine.Quarantine`."""

    def erase(self, device: str, *, tenant: str) -> int: ...


class Store(Protocol):
    """What is stored; see `series.port.SeriesWriter`."""

    def delete(self, device: str, *, tenant: str = "default") -> None: ...


class Passage(NamedTuple):
    """What is on its way into the store, and what is remembered of it."""

    oldest_ns: Callable[[], int | None]  # when the oldest reading on its way was received
    forget: Callable[[Mapping[str, int]], None]  # the numbers of these devices: the next of that id begins anew


class Erasures:
    """Follows the registry; used by one thread."""

    def __init__(
        self,
        registry: Peer,
        quarantine: Quarantine,
        store: Store | None,
        passage: Passage,
        *,
        erase_media: Callable[[str, str], None] = lambda _device, _tenant: None,
        now_ns: Callable[[], int] = clock.now_ns,
    ) -> None:
        """`store` is None when its engine cannot delete; `erase_media` takes snapshots away, of device and tenant."""
        self._erase_media = erase_media
        self._registry = registry
        self._quarantine = quarantine
        self._store = store
        self._passage = passage
        self._now_ns = now_ns
        self._emptied: dict[str, tuple[int, int]] = {}  # erasure -> when its quarantine was emptied, how many entries
        self._waits = False

    def poll(self) -> None:
        """Do what can be done; called each POLL_S. A registry or store that is away is asked again."""
        try:
            wanted = ErasureList.model_validate(self._registry.call("GET", "/internal/erasures")).items
            for erasure in wanted:
                self._advance(erasure)
        except (HeadwaterError, Unavailable) as error:
            say = log.warning if self._waits else log.info  # once is usual: at a start, this may be ready first
            say("erasure_waits", why=error.detail)
            self._waits = True
            return
        self._waits = False
        self._emptied = {each.id: self._emptied[each.id] for each in wanted if each.id in self._emptied}

    def _advance(self, erasure: Erasure) -> None:
        now_ns = self._now_ns()
        if self._store is None:
            self._answer(erasure, Erased(refusal="the store's engine cannot delete the points of a device"))
        elif now_ns < erasure.since_ns + MARGIN_NS:
            return
        elif erasure.id not in self._emptied:
            entries = self._quarantine.erase(erasure.device, tenant=erasure.tenant)
            self._emptied[erasure.id] = (self._now_ns(), entries)
        elif self._has_passed(self._emptied[erasure.id][0] + MARGIN_NS):
            self._store.delete(erasure.device, tenant=erasure.tenant)
            self._erase_media(erasure.device, erasure.tenant)
            self._passage.forget({erasure.device: EVERYTHING})
            log.info("device_erased", device=erasure.device)
            self._answer(erasure, Erased(quarantined=self._emptied[erasure.id][1]))

    def _has_passed(self, time_ns: int) -> bool:
        """Tell whether all readings received up to a time are stored."""
        oldest_ns = self._passage.oldest_ns()
        return self._now_ns() > time_ns and (oldest_ns is None or oldest_ns > time_ns)

    def _answer(self, erasure: Erasure, erased: Erased) -> None:
        self._registry.call("POST", f"/internal/erasures/{erasure.id}:done", erased.model_dump())
