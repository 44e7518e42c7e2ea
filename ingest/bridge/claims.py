"""Whose a topic is that does not tell it: the claims of devices, learnt from the registry and kept on disk.

A bridge that starts while the registry is away goes by what it knew last. Knows no MQTT client.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chassis import logs
from chassis.peers import Peer
from ingest.bridge.metrics import CLAIMS
from wire import claims as wire_claims
from wire.claims import Claim
from wire.devices import Changes
from wire.errors import HeadwaterError
from wire.protocols import HOST_STATES

log = logs.get(__name__)
_CLAIM = "\0"  # where a node of the tree keeps the claim that ends there: no level holds a NUL


class Claims:
    """Finds the claim of a topic. Never changed: a new one takes its place."""

    def __init__(self, claims: Iterable[Claim] = ()) -> None:
        self.all = tuple(claims)
        self.filters = wire_claims.heard(self.all)  # what the bridge subscribes to
        self.has_hosts = HOST_STATES in wire_claims.asked(self.all)  # some ask whether their host is online
        self._tree: dict[str, Any] = {}  # a node is a dict by level
        for claim in self.all:
            node = self._tree
            for level in claim.filter.split("/"):
                node = node.setdefault(level, {})
            node[_CLAIM] = claim

    def find(self, topic: str) -> Claim | None:
        """Give the claim that a topic falls under; there is one at most."""
        return _find(self._tree, topic.split("/"), 0)


def _find(node: dict[str, Any], levels: list[str], depth: int) -> Claim | None:
    rest: Claim | None = node.get("#", {}).get(_CLAIM)
    if rest is not None:
        return rest
    if depth == len(levels):
        found: Claim | None = node.get(_CLAIM)
        return found
    for level in (levels[depth], "+"):
        if level in node and (claim := _find(node[level], levels, depth + 1)) is not None:
            return claim
    return None


class ClaimFeed:
    """Follows the registry. `poll` is called by one thread; `current` is what was known at the start."""

    def __init__(self, registry: Peer, path: Path | None, tell: Callable[[Claims], None]) -> None:
        """`tell` is given the claims whenever they are new; `path` is where they are kept, None: nowhere."""
        self._registry = registry
        self._path = path
        self._tell = tell
        self._revision = -1  # below 0: nothing was heard of the registry yet
        self.current = Claims(self._read())
        CLAIMS.set(len(self.current.all))

    def poll(self, wait_s: float) -> bool:
        """Ask what changed, for up to `wait_s`, and tell it; False: the registry did not answer."""
        try:
            since = max(0, self._revision)
            asked = f"/internal/changes?wait={wait_s if self._revision >= 0 else 0}&since={since}"
            changes = Changes.model_validate(self._registry.call("GET", asked))
            if self._concerns_us(changes):
                answer = self._registry.call("GET", "/internal/topics")
                self._take(Claims(wire_claims.Claims.model_validate(answer).claims))
        except (HeadwaterError, ValidationError) as error:
            if not isinstance(error, HeadwaterError) or error.status < 500:  # noqa: PLR2004 - away is no trouble
                log.warning("claims_unknown", reason=str(error)[:200])
            return False
        self._revision = changes.revision
        return True

    def _concerns_us(self, changes: Changes) -> bool:
        ours = {claim.device for claim in self.current.all}
        is_told = changes.reset or changes.topics or bool(changes.tenants)
        return self._revision < 0 or is_told or not ours.isdisjoint(changes.devices)

    def _take(self, claims: Claims) -> None:
        if claims.all == self.current.all:
            return
        self._keep(claims)
        self.current = claims
        CLAIMS.set(len(claims.all))
        log.info("claims_changed", claims=len(claims.all), subscriptions=len(claims.filters))
        self._tell(claims)

    def _read(self) -> list[Claim]:
        try:
            text = self._path.read_bytes() if self._path is not None else b'{"claims":[]}'
            return wire_claims.Claims.model_validate_json(text).claims
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            log.warning("claims_unreadable", reason=str(error)[:200])
            return []

    def _keep(self, claims: Claims) -> None:
        if self._path is None:
            return
        made = self._path.with_suffix(".new")
        try:
            with made.open("w") as file:
                file.write(wire_claims.Claims(claims=list(claims.all)).model_dump_json())
                file.flush()
                os.fsync(file.fileno())
            made.replace(self._path)
        except OSError as error:
            log.warning("claims_not_kept", reason=str(error))
