"""Slowing guesses down: how long whoever presents wrong secrets has to wait. Knows not whose secrets they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address

from wire.errors import TooManyRequests

FREE_FAILURES = 5  # wrong ones of one name from one address before it has to wait
FREE_OF_DEVICE = 10  # of one device, and of all devices behind an address
FREE_OF_ADDRESS = 100
MAX_WAIT_S = 300.0
MAX_RANDOM_WAIT_S = 60.0  # for secrets of 256 random bits: of devices, and tokens
FORGIVEN_S = 900.0  # after the last wrong one
MAX_REMEMBERED = 10_000  # pairs of name and address

Key = tuple[str, str]
NETWORK_BITS = 64  # of an IPv6 address: what one household or machine is given, with 2^64 addresses to choose from


def origin_of(remote_ip: str) -> str:
    """Give what guesses from an address are counted by: itself, or the /64 network of an IPv6 address."""
    if ":" not in remote_ip:
        return remote_ip
    try:
        address = IPv6Address(remote_ip.partition("%")[0])
    except ValueError:
        return remote_ip
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> NETWORK_BITS << NETWORK_BITS)}/{NETWORK_BITS}"


class BackOff:
    """Waiting times after wrong secrets: doubling from 1 s after those that are free, per name and address.

    Of IPv6 addresses those of a /64 network count together. Held in memory: a restart forgives, which no attacker can
    cause. Thread-safe.
    """

    def __init__(
        self,
        detail: str = "too many wrong passwords, wait",
        code: str = "login_back_off",
        *,
        max_wait_s: float = MAX_WAIT_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`detail` and `code` are those of the refusal."""
        self._detail, self._code, self._max_wait_s, self._now_s = detail, code, max_wait_s, now_s
        self._failures: dict[Key, tuple[int, float]] = {}  # guarded by _lock: count, when it may try again
        self._lock = threading.Lock()

    def demand(self, key: Key) -> None:
        """Refuse while waiting.

        Raises:
            TooManyRequests: it has to wait.
        """
        with self._lock:
            _, until_s = self._failures.get(_counted(key), (0, 0.0))
        left_s = until_s - self._now_s()
        if left_s > 0:
            raise TooManyRequests(self._detail, retry_after_s=int(left_s) + 1, code=self._code)

    def failed(self, key: Key, *, free: int = FREE_FAILURES) -> None:
        """Count a wrong one; the first `free` cost no waiting."""
        now_s, key = self._now_s(), _counted(key)
        with self._lock:
            count, until_s = self._failures.pop(key, (0, now_s))
            count = count + 1 if now_s - until_s < FORGIVEN_S else 1
            wait_s = min(2.0 ** min(count - free, 16), self._max_wait_s) if count >= free else 0.0
            if len(self._failures) >= MAX_REMEMBERED:
                self._failures.pop(next(iter(self._failures)))
            self._failures[key] = (count, now_s + wait_s)

    def wrong(self, free: Mapping[Key, int]) -> None:
        """Count one wrong secret for each key, with how many are free, and have only wrong ones wait.

        A right secret never comes here, so that nobody is kept out by a neighbour behind the same address: for secrets
        of 256 random bits, whose guesses cost the platform time and never succeed.

        Raises:
            TooManyRequests: one of the keys has to wait; then none is counted.
        """
        for key in free:
            self.demand(key)
        for key, count in free.items():
            self.failed(key, free=count)

    def succeeded(self, key: Key) -> None:
        """Forget the wrong ones."""
        with self._lock:
            self._failures.pop(_counted(key), None)


def _counted(key: Key) -> Key:
    return key[0], origin_of(key[1])


class DeviceGuesses:
    """The back-off of one process for wrong secrets of devices; thread-safe."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        detail = "too many wrong secrets from this address, wait"
        self._back_off = BackOff(detail, "device_back_off", max_wait_s=MAX_RANDOM_WAIT_S, now_s=now_s)

    def wrong(self, device_id: str, remote_ip: str) -> None:
        """Count a wrong secret of a device, "" for one nobody knows. Raises TooManyRequests, see BackOff.wrong."""
        own = {(device_id, remote_ip): FREE_OF_DEVICE} if device_id else {}
        self._back_off.wrong(own | {("", remote_ip): FREE_OF_ADDRESS})


class TokenGuesses:
    """The back-off of one process for wrong tokens of operators and services, sessions among them; thread-safe."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        detail = "too many wrong tokens from this address, wait"
        self._back_off = BackOff(detail, "token_back_off", max_wait_s=MAX_RANDOM_WAIT_S, now_s=now_s)

    def wrong(self, remote_ip: str) -> None:
        """Count a wrong token. Raises TooManyRequests, see BackOff.wrong."""
        self._back_off.wrong({("", remote_ip): FREE_OF_ADDRESS})
