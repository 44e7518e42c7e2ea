"""What of the devices a token reaches: the query that it was made with, as one more condition. Knows no HTTP."""

from __future__ import annotations

from typing import Protocol

from chassis import parking
from devices.query.parser import parse
from devices.query.tree import Compare, Every, Field, Node
from wire import clock
from wire.devices import Principal


class Finder(Protocol):
    """Finds devices; see `devices.query.store.Finder`."""

    def ids(self, tenant: str, tree: Node, *, after: str = "", limit: int | None = None) -> list[str]: ...


class QueryReaches:
    """A chassis.reach.Reaches."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def holds(self, principal: Principal, device_id: str) -> bool:
        """See Reaches."""
        tree = narrowed(principal, one(device_id))
        return bool(parking.aside(self._finder.ids, principal.tenant, tree, limit=1))


def narrowed(asker: Principal, tree: Node) -> Node:
    """Leave of what a query finds the devices that the asker's token is for."""
    return within(asker.devices, tree) if asker.devices else tree


def within(scope: str, tree: Node) -> Node:
    """Join two queries as trees: no bracket in one gets out of the other."""
    return Every((parse(scope, clock.now_ns()), tree))


def one(device_id: str) -> Node:
    """Find a single device."""
    return Compare(Field("id", "text"), "=", device_id)
