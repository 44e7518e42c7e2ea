"""How much a device, all of its type, and all of its tenant may send: token buckets, asked before a message is decoded.

A bucket counts readings, messages or bytes. How many readings a message holds is known only after decoding: it is let
in while a token of each kind is there, and the rest is taken as a debt that the next message waits for. Knows no
transport.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from chassis.metrics import Counter
from wire.devices import UNITS, DeviceTypeSpec, read_rate_limit

MAX_BUCKETS = 100_000  # of devices, and as many of types and tenants; about 250 bytes each
LIMITED = Counter(
    "headwater_ingest_rate_limited", "Messages over a rate limit, each time they come", ["scope", "outcome"]
)

Bands = tuple[tuple[float, float, int], ...]  # (tokens at most, tokens a second, index of UNITS), all hold at once
Whose = tuple[str, str]  # tenant, device


_WHOSE = {
    "device": "this device",
    "type": "all devices of its type together",
    "tenant": "all devices of its tenant together",
}


class Wait(NamedTuple):
    """How long until a token is there; 0 s: it was taken."""

    seconds: float
    scope: str  # one of _WHOSE, whichever is latest; "": of none

    def in_words(self) -> str:
        """Say it to a device."""
        whose = _WHOSE[self.scope or "device"]
        return f"over the rate limit of {whose}; a token is there in {self.seconds:.2f} s"


ADMITTED = Wait(0.0, "")


def to_bands(notation: str) -> Bands:
    """Give the bands of `20:1,600:60`. Raises ValueError."""
    return tuple(
        (float(count), count / seconds, UNITS.index(unit)) for count, seconds, unit in read_rate_limit(notation)
    )


class Limits(NamedTuple):
    """What holds for a device besides the limit of its tenant."""

    own: Bands | None = None  # its own, or what its type says of each; None: that of the installation
    together: Bands = ()  # for all devices of its type
    type: str = ""


UNLIMITED = Limits()


def limits_of(name: str, spec: DeviceTypeSpec) -> Limits:
    """Give what a type says; UNLIMITED itself when it says nothing."""
    if spec.rate_limit is None and not spec.type_rate_limit:
        return UNLIMITED
    own = None if spec.rate_limit is None else to_bands(spec.rate_limit)
    return Limits(own, to_bands(spec.type_rate_limit or ""), name)


def closer(of_device: Bands | None, of_type: Limits) -> Limits:
    """Give what holds for a device: what it has of its own goes before what its type says of each."""
    return of_type if of_device is None else of_type._replace(own=of_device)


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


class _Buckets:
    """Buckets by whose they are."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, ...], _Bucket] = {}

    def find(self, whose: tuple[str, ...], bands: Bands, now_s: float) -> _Bucket:
        """Give a bucket; a full one when there is none with these bands."""
        bucket = self._held.get(whose)
        if bucket is None or bucket.bands != bands:
            if len(self._held) >= MAX_BUCKETS:
                self._forget(now_s)
            bucket = self._held[whose] = _Bucket(bands, now_s)
        return bucket

    def __len__(self) -> int:
        return len(self._held)

    def _forget(self, now_s: float) -> None:
        """Make room: a full bucket says no more than none; when none is full, all begin anew."""
        self._held = {key: bucket for key, bucket in self._held.items() if not bucket.is_full(now_s)}
        if len(self._held) >= MAX_BUCKETS:
            self._held.clear()


class RateLimits:
    """The buckets of one process. Thread-safe."""

    def __init__(self, device: str = "", tenant: str = "", now_s: Callable[[], float] = time.monotonic) -> None:
        """Set the installation's limits; those that a device, its type or a tenant has of its own go before them."""
        self._device, self._tenant = to_bands(device), to_bands(tenant)
        self._own: dict[str, Bands] = {}  # of tenants with a limit of their own
        self.is_on = self._is_on()  # if not, only devices and types with limits of their own need be asked about
        self._now_s = now_s
        self._lock = threading.Lock()  # guards the buckets
        self._devices = _Buckets()
        self._shared = _Buckets()  # of types and tenants

    def limit_tenants(self, limits: Mapping[str, str | None]) -> None:
        """Learn which limits some tenants have of their own; None: that of the installation holds."""
        own = {tenant: to_bands(limit) for tenant, limit in limits.items() if limit is not None}
        with self._lock:
            kept = {tenant: bands for tenant, bands in self._own.items() if tenant not in limits}
            self._own = kept | own
            self.is_on = self._is_on()

    def _is_on(self) -> bool:
        return bool(self._device or self._tenant or any(self._own.values()))

    def take(self, whose: Whose, limits: Limits, *, size: int = 0, ahead: int = 0) -> Wait:
        """Take the tokens for a message, or tell when to come again.

        Args:
            whose: the device that sends.
            limits: what holds for it and its type.
            size: bytes of the message.
            ahead: how many other messages of this device wait for a token too, before this one.
        """
        now_s = self._now_s()
        with self._lock:
            buckets = self._buckets_of(whose, limits, now_s)
            wait = _longest(buckets, now_s, ahead)
            if not wait.seconds:
                _spend(buckets, (1, 1, size))
        return wait

    def take_part(self, whose: Whose, limits: Limits, readings: int) -> Wait:
        """Take the tokens for a device's readings in a message of another that was let in; no token of its tenant.

        What it takes of its tenant's is a debt, as the rest of any message.
        """
        now_s = self._now_s()
        with self._lock:
            buckets = self._buckets_of(whose, limits, now_s)
            of_tenant = buckets.pop("tenant", None)
            wait = _longest(buckets, now_s, 0)
            if not wait.seconds:
                _spend(buckets, (readings, 1, 0))
                if of_tenant is not None:
                    of_tenant.take((readings, 0, 0))
        return wait

    def charge(self, whose: Whose, limits: Limits, readings: int) -> None:
        """Take the tokens for all readings of a message that was let in; its first is paid."""
        if readings > 1:
            with self._lock:
                _spend(self._buckets_of(whose, limits, self._now_s()), (readings - 1, 0, 0))

    def _buckets_of(self, whose: Whose, limits: Limits, now_s: float) -> dict[str, _Bucket]:
        """Give the buckets that a message of a device takes from, by scope."""
        found, tenant = {}, whose[0]
        if own := self._device if limits.own is None else limits.own:
            found["device"] = self._devices.find(whose, own, now_s)
        if limits.together:
            found["type"] = self._shared.find((tenant, limits.type), limits.together, now_s)
        if ours := self._own.get(tenant, self._tenant):
            found["tenant"] = self._shared.find((tenant,), ours, now_s)
        return found


def _longest(buckets: Mapping[str, _Bucket], now_s: float, ahead: int) -> Wait:
    waits = [Wait(bucket.wait_s(now_s, ahead), scope) for scope, bucket in buckets.items()]
    longest = max(waits, key=lambda wait: wait.seconds, default=ADMITTED)
    return longest if longest.seconds else ADMITTED


def _spend(buckets: Mapping[str, _Bucket], spent: tuple[int, int, int]) -> None:
    for bucket in buckets.values():
        bucket.take(spent)
