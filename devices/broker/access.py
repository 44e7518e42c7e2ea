"""Access to the broker follows the registry: who may connect, with which hash. The registry is the truth.

mosquitto's password file holds one hash a user, the registry several credentials a device. So the broker takes one of
a device's valid credentials at a time: the one it took already (a rotation cuts nobody off), else the newest. When the
broker refuses a log-in, each unconnected device with several valid credentials is turned to its next one, so a device
that comes with its new secret, or still with its old one, is let in at one of its next tries.

The list is kept in memory (300 bytes a device) and only devices that changed are read again: with 100,000 of them, all
of it takes a second of this process, which a change of a tag must not cost.

A tenant with as many devices at the broker as it may have is full: until one of them goes, the list names no other of
its devices, so that more that came at the same moment are cut off and none is let in.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Protocol

from chassis import logs
from devices import metrics
from devices.rows import BrokerCredential
from wire import clock
from wire.claims import Claim
from wire.devices import Changes

log = logs.get(__name__)
POLL_S = 0.15  # how soon a change in the registry is noticed
PAUSE_S = 0.35  # least time between two rewrites: every reload stalls the broker's clients for a moment
BUSY_PAUSE_S = 1.0  # while changes go on and on, as when a fleet enrols
SETTLED_S = 2.0  # after a turn, until it has surely reached the broker
TURN_PAUSE_S = 1.0  # least time between two turns of credentials
FULL_S = 0.5  # how often is looked which tenants are full


Pick = Callable[[Sequence[BrokerCredential]], list[tuple[str, str]]]


class BrokerAuth(Protocol):
    """A broker's list of devices."""

    def grant(self, claims: Sequence[Claim]) -> None:
        """Let devices use the topics that they have claimed, beside their own branch; `replace` may finish it."""
        ...

    def replace(self, users: Sequence[tuple[str, str]]) -> None:
        """Make the broker accept exactly these users, each with one hash, beside the platform's services."""
        ...

    def review(self) -> None:
        """Look at what beside the users may have changed: the registry did."""
        ...

    def settle(self) -> None:
        """Finish what could not be finished yet; called often."""
        ...


class Source(Protocol):
    """Where credentials come from; see `devices.internal.lookups.LookupStore`."""

    def revision(self) -> int: ...
    def changes(self, since: int) -> Changes: ...
    def full(self) -> Mapping[str, frozenset[str]]: ...
    def broker_credentials(
        self, now_ns: int, ids: Sequence[str] | None = None
    ) -> tuple[list[BrokerCredential], int | None]: ...


class Turner(Protocol):
    """Turns devices to their next credential; see `devices.presence.store.PresenceStore`."""

    def turn_broker_credentials(self, now_ns: int) -> list[str]: ...


class BrokerAccess:
    """Keeps a broker's list equal to the registry, within a second of a change."""

    def __init__(
        self,
        source: Source,
        turner: Turner,
        auth: BrokerAuth,
        pick: Pick | None = None,
        claims: Callable[[], Sequence[Claim]] = lambda: (),
    ) -> None:
        """Prepare.

        Args:
            source: where credentials come from.
            turner: turns devices to their next credential.
            auth: the broker's list.
            pick: makes the list of the valid credentials: `choose`, unless the broker takes all of them (`every`).
            claims: gives the claims of all devices that may use the broker.
        """
        self._pick = pick or choose
        self._claims = claims
        self._granted: Sequence[Claim] | None = None
        self._source = source
        self._turner = turner
        self._auth = auth
        self._users: dict[str, str] = {}  # device -> hash: the list as it was written
        self._turned: deque[list[str]] = deque()  # turns that are not written yet
        self._full: Mapping[str, frozenset[str]] = {}  # by tenant, who of it may stay
        self._is_full_new = False
        self._looked_at_s = -FULL_S
        self._revision = -1  # what the list was written from; below 0: all of it has to be read
        self._is_written = False
        self._next_edge_ns: int | None = None
        self._turned_at_s = -TURN_PAUSE_S
        self._changed_at_s = -SETTLED_S  # when a turn really gave the broker another credential of a device

    @property
    def is_current(self) -> bool:
        """Tell whether the list was written at least once."""
        return self._is_written

    @property
    def is_settled(self) -> bool:
        """Tell whether the broker takes of each device the credential that is chosen for it, for a while already."""
        return self._is_written and time.monotonic() - self._changed_at_s > SETTLED_S and not self._is_stale()

    def run(self, stopping: threading.Event) -> None:
        """Follow the registry until stopped."""
        pause_s = PAUSE_S
        while not stopping.is_set():
            self._look_who_is_full()
            if self._is_stale():
                self.write()
                stopping.wait(pause_s)
                pause_s = min(pause_s * 2, BUSY_PAUSE_S)
            else:
                pause_s = PAUSE_S
                stopping.wait(POLL_S)
            self._auth.settle()

    def write(self) -> None:
        """Bring the list up to date now."""
        started_s = time.monotonic()
        revision, ids = self._concerned()
        self._revision = -1  # a fault below leaves all of the list stale
        valid, edge_ns = self._source.broker_credentials(clock.now_ns(), ids)
        claims = self._claims()
        is_granted, self._granted = self._granted == claims, None
        if not is_granted:
            self._auth.grant(claims)
        if self._take(dict(self._pick(valid)), ids) or ids is None or not is_granted:
            self._auth.replace(sorted(self._users.items()))
            metrics.PASSWD_WRITES.inc()
        else:
            self._auth.review()
        self._granted = claims
        edges = [edge for edge in (edge_ns, self._next_edge_ns if ids is not None else None) if edge is not None]
        self._next_edge_ns = min(edges, default=None)
        self._revision = revision
        self._is_written = True
        metrics.PASSWD_SECONDS.observe(time.monotonic() - started_s)

    def _concerned(self) -> tuple[int, list[str] | None]:
        """Give the newest revision, and the devices whose credentials may have changed; None: any of them."""
        turned = [device for _ in range(len(self._turned)) for device in self._turned.popleft()]
        is_full_new, self._is_full_new = self._is_full_new, False
        if self._revision < 0 or self._is_at_edge() or is_full_new:
            return self._source.revision(), None
        changes = self._source.changes(self._revision)
        return changes.revision, None if changes.reset else [*changes.devices, *turned]

    def _take(self, fresh: dict[str, str], ids: Iterable[str] | None) -> bool:
        """Take over what was read of all devices, or of some; tell whether it is new."""
        if ids is None:
            is_new, self._users = self._users != fresh, fresh
            return is_new
        changed = [id_ for id_ in ids if self._users.get(id_) != fresh.get(id_)]
        for id_ in changed:
            self._users.pop(id_, None)
        self._users |= {id_: fresh[id_] for id_ in changed if id_ in fresh}
        return bool(changed)

    def on_refusal(self) -> None:
        """Answer a refused log-in: turn unconnected devices with several valid credentials to their next one."""
        if time.monotonic() - self._turned_at_s < TURN_PAUSE_S:
            return
        self._turned_at_s = time.monotonic()
        turned = self._turner.turn_broker_credentials(clock.now_ns())
        if turned:
            self._changed_at_s = time.monotonic()
            log.info("broker_credentials_turned", devices=len(turned))
            self._turned.append(turned)

    def _is_stale(self) -> bool:
        is_new = bool(self._turned) or self._is_full_new or self._is_at_edge()
        return is_new or self._source.revision() != self._revision

    def _look_who_is_full(self) -> None:
        if time.monotonic() - self._looked_at_s < FULL_S:
            return
        self._looked_at_s, full = time.monotonic(), self._source.full()
        self._is_full_new = self._is_full_new or full != self._full
        self._full = full

    def _is_at_edge(self) -> bool:
        return self._next_edge_ns is not None and clock.now_ns() >= self._next_edge_ns


def choose(valid: Sequence[BrokerCredential]) -> list[tuple[str, str]]:
    """Pick one hash for each device: that of its chosen credential, else of its newest.

    Args:
        valid: credentials in order of devices, newest first within a device.
    """
    users = []
    for device, held in groupby(valid, key=lambda credential: credential.device):
        mine = list(held)
        taken = next((credential for credential in mine if credential.is_chosen), mine[0])
        users.append((device, taken.broker_hash))
    return users


def every(valid: Sequence[BrokerCredential]) -> list[tuple[str, str]]:
    """Name all credentials of each device, with spaces between."""
    return [
        (device, " ".join(sorted(credential.id for credential in held)))
        for device, held in groupby(valid, key=lambda credential: credential.device)
    ]


class NoBroker:
    """A BrokerAuth where the broker's list is kept by somebody else."""

    def grant(self, claims: Sequence[Claim]) -> None:
        """See BrokerAuth."""

    def replace(self, users: Sequence[tuple[str, str]]) -> None:
        """See BrokerAuth."""

    def review(self) -> None:
        """See BrokerAuth."""

    def settle(self) -> None:
        """See BrokerAuth."""
