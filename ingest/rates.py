"""How much one device, and one tenant, may send: token buckets, asked before a message is decoded. Knows no transport.

A bucket counts readings, messages or bytes. How many readings a message holds is known only after decoding: it is let
in while a token of each kind is there, and the rest is taken as a debt that the next message waits for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from chassis.metrics import Counter
from wire.devices import UNITS, read_rate_limit

MAX_BUCKETS = 100_000  # of devices; about 250 bytes each
LIMITED = Counter(
    "headwater_ingest_rate_limited", "Messages over a rate limit, each time they come", ["scope", "outcome"]
)

Bands = tuple[tuple[float, float, int], ...]  # (tokens at most, tokens a second, index of UNITS), all hold at once
Whose = tuple[str, str]  # tenant, device


class Wait(NamedTuple):
    """How long until a token is there; 0 s: it was taken."""

    seconds: float
    scope: str  # "device" or "tenant", whichever is later

    def in_words(self) -> str:
        """Say it to a device."""
        whose = "this device" if self.scope == "device" else "all devices of its tenant together"
        return f"over the rate limit of {whose}; a token is there in {self.seconds:.2f} s"


ADMITTED = Wait(0.0, "")


def to_bands(notation: str) -> Bands:
    """Give the bands of `20:1,600:60`. Raises ValueError."""
    return tuple(
        (float(count), count / seconds, UNITS.index(unit)) for count, seconds, unit in read_rate_limit(notation)
    )


def closer(of_device: Bands | None, of_type: Bands | None) -> Bands | None:
    """Give the limit that holds for a device; None: that of the installation."""
    return of_type if of_device is None else of_device


class _Bucket:
    __slots__ = ("at_s", "bands", "levels")

    def __init__(self, bands: Bands, now_s: float) -> None:
        self.bands = bands
        self.levels = [band[0] for band in bands]
        self.at_s = now_s

    def wait_s(self, now_s: float, ahead: int) -> float:
        """Refill, and tell how long until there is a token beyond those for `ahead` others."""
        elapsed_s, self.at_s, wait_s = now_s - self.at_s, now_s, 0.0
        for index, (most, per_s, _) in enumerate(self.bands):
            level = self.levels[index] = min(most, self.levels[index] + elapsed_s * per_s)
            if level < ahead + 1:
                wait_s = max(wait_s, (ahead + 1 - level) / per_s)
        return wait_s

    def take(self, spent: tuple[int, int, int]) -> None:
        """Take tokens, as many as of each of UNITS."""
        self.levels = [level - spent[band[2]] for level, band in zip(self.levels, self.bands, strict=True)]

    def is_full(self, now_s: float) -> bool:
        return all(
            level + (now_s - self.at_s) * per_s >= most
            for level, (most, per_s, _) in zip(self.levels, self.bands, strict=True)
        )


class RateLimits:
    """The buckets of one process. Thread-safe."""

    def __init__(self, device: str = "", tenant: str = "", now_s: Callable[[], float] = time.monotonic) -> None:
        """Set the installation's limits; those that a device, its type or a tenant has of its own go before them."""
        self._device, self._tenant = to_bands(device), to_bands(tenant)
        self._own: dict[str, Bands] = {}  # of tenants with a limit of their own
        self.is_on = self._is_on()  # if not, only types of their own limit need be asked about
        self._now_s = now_s
        self._lock = threading.Lock()  # guards the buckets
        self._devices: dict[Whose, _Bucket] = {}
        self._tenants: dict[str, _Bucket] = {}

    def limit_tenants(self, limits: Mapping[str, str | None]) -> None:
        """Learn which limits some tenants have of their own; None: that of the installation holds."""
        own = {tenant: to_bands(limit) for tenant, limit in limits.items() if limit is not None}
        with self._lock:
            kept = {tenant: bands for tenant, bands in self._own.items() if tenant not in limits}
            self._own = kept | own
            self.is_on = self._is_on()

    def _is_on(self) -> bool:
        return bool(self._device or self._tenant or any(self._own.values()))

    def take(self, whose: Whose, own: Bands | None, *, size: int = 0, ahead: int = 0) -> Wait:
        """Take the tokens for a message, or tell when to come again.

        Args:
            whose: the device that sends.
            own: its own limit, or that of its type; None: that of the installation.
            size: bytes of the message.
            ahead: how many other messages of this device wait for a token too, before this one.
        """
        bands = self._device if own is None else own
        if not bands and not self._own.get(whose[0], self._tenant):
            return ADMITTED
        now_s = self._now_s()
        with self._lock:
            mine, all_of_us = self._bucket(whose, bands, now_s), self._tenant_bucket(whose[0], now_s)
            mine_s, ours_s = mine.wait_s(now_s, ahead), all_of_us.wait_s(now_s, ahead)
            if mine_s or ours_s:
                return Wait(mine_s, "device") if mine_s >= ours_s else Wait(ours_s, "tenant")
            mine.take((1, 1, size))
            all_of_us.take((1, 1, size))
        return ADMITTED

    def take_part(self, whose: Whose, own: Bands | None, readings: int) -> Wait:
        """Take the tokens for a device's readings in a message of another that was let in; no token of its tenant.

        What it takes of its tenant's is a debt, as the rest of any message.
        """
        bands = self._device if own is None else own
        if not bands and not self._own.get(whose[0], self._tenant):
            return ADMITTED
        now_s = self._now_s()
        with self._lock:
            mine = self._bucket(whose, bands, now_s)
            if wait_s := mine.wait_s(now_s, 0):
                return Wait(wait_s, "device")
            mine.take((readings, 1, 0))
            self._tenant_bucket(whose[0], now_s).take((readings, 0, 0))
        return ADMITTED

    def charge(self, whose: Whose, own: Bands | None, readings: int) -> None:
        """Take the tokens for all readings of a message that was let in; its first is paid."""
        bands = self._device if own is None else own
        if readings <= 1 or not (bands or self._own.get(whose[0], self._tenant)):
            return
        now_s = self._now_s()
        with self._lock:
            self._bucket(whose, bands, now_s).take((readings - 1, 0, 0))
            self._tenant_bucket(whose[0], now_s).take((readings - 1, 0, 0))

    def _bucket(self, whose: Whose, bands: Bands, now_s: float) -> _Bucket:
        bucket = self._devices.get(whose)
        if bucket is None or bucket.bands != bands:
            if len(self._devices) >= MAX_BUCKETS:
                self._forget(now_s)
            bucket = self._devices[whose] = _Bucket(bands, now_s)
        return bucket

    def _tenant_bucket(self, tenant: str, now_s: float) -> _Bucket:
        bands, bucket = self._own.get(tenant, self._tenant), self._tenants.get(tenant)
        if bucket is None or bucket.bands != bands:
            bucket = self._tenants[tenant] = _Bucket(bands, now_s)
        return bucket

    def _forget(self, now_s: float) -> None:
        """Make room: a full bucket says no more than none; when none is full, all begin anew."""
        self._devices = {key: bucket for key, bucket in self._devices.items() if not bucket.is_full(now_s)}
        if len(self._devices) >= MAX_BUCKETS:
            self._devices.clear()
