"""What a bridge is subscribed to: the platform's own topics always, and those of claims as these come and go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from chassis import logs
from wire import topics
from wire.claims import is_ordered

log = logs.get(__name__)
SHARE = "$share/headwater/"
DROPPED = "$SYS/broker/publish/messages/dropped"
OWN = (topics.TELEMETRY, topics.TELEMETRY_PROTOCOL, topics.CHILD_TELEMETRY, topics.CHILD_TELEMETRY_PROTOCOL)
CARRIED = {"telemetry": OWN, "media": (topics.MEDIA,)}
AT_ONCE = 100  # filters of claims in one SUBSCRIBE: a broker bounds its size


class Subscriber(Protocol):
    """The client; see `ingest.bridge.client.Client`."""

    def take_in(self, filters: list[tuple[str, int]], *, claimed: bool = False) -> int: ...
    def unsubscribe(self, topic: Any) -> Any: ...


class Subscriptions:
    """Of one bridge. Used by the network thread."""

    def __init__(self, number: int, bridges: int, claimed: Sequence[str], own: Sequence[str] = OWN) -> None:
        """`claimed` are the filters of claims, `own` the platform's; see `choose_filters` for the others."""
        self._own = own
        self._place = (number, bridges)
        self._claimed = set(claimed)
        self._asked: dict[int, list[str]] = {}  # filters of claims by message id, until they are answered
        self.is_wanted = number <= bridges

    def begin(self, client: Subscriber) -> None:
        """Subscribe on a connection that is new, and give up what was another bridge's share."""
        wanted, unwanted = choose_filters(*self._place, self._own)
        self._asked.clear()
        client.take_in([*((name, 1) for name in wanted), (DROPPED, 0)])
        client.unsubscribe(unwanted)  # second: a message in between must have somewhere to go
        self._add(client, sorted(self._claimed))

    def follow(self, client: Subscriber, claimed: Sequence[str], *, is_connected: bool) -> None:
        """Take new filters of claims; without a connection `begin` comes to them."""
        gone, new = sorted(self._claimed - set(claimed)), sorted(set(claimed) - self._claimed)
        self._claimed = set(claimed)
        if not is_connected:
            return
        self._add(client, new)
        for part in _parts(gone):
            client.unsubscribe([each for kind in self._choose(part) for each in kind])

    def settle(self, mid: int, refused: list[bool]) -> bool | None:
        """Take an answer; tell whether the own topics are subscribed to, None: it was about others."""
        asked = self._asked.pop(mid, None)
        if asked is None:
            return not any(refused[: len(self._own)])  # what follows is no message of a device
        denied = [name for name, is_refused in zip(asked, refused, strict=False) if is_refused]
        if denied:
            log.error("subscription_refused", filters=denied[:10], count=len(denied))
        return None

    def _add(self, client: Subscriber, claimed: Sequence[str]) -> None:
        for part in _parts(claimed):
            wanted, unwanted = self._choose(part)
            if wanted:
                self._asked[client.take_in([(name, 1) for name in wanted], claimed=True)] = wanted
            client.unsubscribe(unwanted)

    def _choose(self, claimed: Sequence[str]) -> tuple[list[str], list[str]]:
        """Give what is subscribed to and what is not of claims; what must keep its order is for the first bridge."""
        number, bridges = self._place
        ordered = [each for each in claimed if is_ordered(each)]
        shared = choose_filters(number, bridges, [each for each in claimed if each not in ordered])
        alone = choose_filters(1 if number == 1 else 2, 1, ordered)
        return shared[0] + alone[0], shared[1] + alone[1]


def choose_filters(number: int, bridges: int, filters: Iterable[str] = OWN) -> tuple[list[str], list[str]]:
    """Give what a bridge subscribes to and what it must no longer be subscribed to.

    Several share the messages (MQTT 5.0 s. 4.8.2). One that is no longer needed has a session all the same, and
    a share in it for ever, unless it gives that up.
    """
    alone = list(filters)
    shared = [SHARE + name for name in alone]
    if number > bridges:
        return [], alone + shared
    return (shared, alone) if bridges > 1 else (alone, shared)


def _parts(filters: Sequence[str]) -> list[Sequence[str]]:
    return [filters[start : start + AT_ONCE] for start in range(0, len(filters), AT_ONCE)]
