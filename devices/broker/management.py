"""Cuts standing connections at a broker that asks by HTTP hooks: through its own management API.

Such a broker asks only at CONNECT (RabbitMQ: also at each new topic). So when a device may not come any more, one of
its credentials is gone, or it claims other topics than before, its connections are ended by name; if it may still come,
it comes again with what is left.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import urllib3

from chassis import logs
from wire.claims import Claim
from wire.errors import HeadwaterError

log = logs.get(__name__)
TIMEOUT_S = 2.0
RETRY_S = 1.0  # after a call that failed; those that wait stay in their order
AGAIN_S = 1.5  # each is cut once more: a log-in that was allowed just before may have come to its end only then
AT_ONCE = 200  # calls between two looks at the registry
FIRST_ERROR, NOT_FOUND = 400, 404
# EMQX 5: a client by its id, which is the device id. RabbitMQ 3.10: all connections of a user.
PATHS = {"emqx": "/api/v5/clients/{id}", "rabbitmq": "/api/connections/username/{id}"}


class Api(NamedTuple):
    """A management API."""

    kind: str
    url: str
    credential: str  # `name:secret`

    def path(self, device_id: str) -> str:
        """Give what is deleted to cut a device off."""
        return self.url + PATHS[self.kind].format(id=quote(device_id, safe=""))


class Management:
    """A BrokerAuth that copies nothing and cuts. Used by one thread."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._headers = urllib3.make_headers(basic_auth=api.credential)
        self._http = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._admitted: Mapping[str, str] | None = None
        self._claimed: Mapping[str, frozenset[str]] | None = None
        self._waiting: list[tuple[float, str]] = []  # a heap: when, whom
        self._resting_until_s = 0.0

    def grant(self, claims: Sequence[Claim]) -> None:
        """See BrokerAuth: what a standing connection may do was told when it began, so it is ended."""
        by_device = groupby(sorted(claims, key=_device_of), key=_device_of)
        now = {device: frozenset(claim.filter for claim in mine) for device, mine in by_device}
        before = now if self._claimed is None else self._claimed
        for device in sorted(before.keys() | now.keys()):
            if before.get(device) != now.get(device):
                self._mark(device)
        self._claimed = now

    def replace(self, users: Sequence[tuple[str, str]]) -> None:
        """See BrokerAuth. What stands beside a device are all its valid credentials, with spaces between."""
        now = dict(users)
        for device, held in (self._admitted or {}).items():
            if held != now.get(device) and not set(held.split()) <= set(now.get(device, "").split()):
                self._mark(device)
        self._admitted = now
        self.settle()

    def _mark(self, device: str) -> None:
        now_s = time.monotonic()
        for when_s in (now_s, now_s + AGAIN_S):
            heapq.heappush(self._waiting, (when_s, device))

    def review(self) -> None:
        """See BrokerAuth."""

    def settle(self) -> None:
        """Cut those that wait for it."""
        now_s = time.monotonic()
        if now_s < self._resting_until_s:
            return
        for _ in range(AT_ONCE):
            if not self._waiting or self._waiting[0][0] > now_s:
                return
            device = self._waiting[0][1]
            try:
                self.cut(device)
            except (urllib3.exceptions.HTTPError, HeadwaterError) as error:
                log.warning("connection_not_cut", device=device, reason=str(error)[:200], waiting=len(self._waiting))
                self._resting_until_s = now_s + RETRY_S
                return
            heapq.heappop(self._waiting)

    def cut(self, device: str) -> None:
        """End a device's connections now.

        Raises:
            HTTPError, HeadwaterError: the API did not do it.
        """
        answer = self._http.request("DELETE", self._api.path(device), headers=self._headers)
        if answer.status >= FIRST_ERROR and answer.status != NOT_FOUND:  # not found: it is not connected
            raise HeadwaterError(f"the broker's management API answered {answer.status}")


def _device_of(claim: Claim) -> str:
    return claim.device


def read(text: str, credential: str) -> Api:
    """Read `emqx+http://host:port` or `rabbitmq+https://host:port`.

    Raises:
        ValueError: neither of these.
    """
    kind, plus, url = text.partition("+")
    parts = urlsplit(url)
    if kind not in PATHS or not plus or parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("emqx+http://HOST:PORT or rabbitmq+http://HOST:PORT (or https)")
    return Api(kind, url.rstrip("/"), credential)
