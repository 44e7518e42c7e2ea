"""What gateways may call devices, cached over the registry so that it outlives it, as devices do.

A gateway's names are read whole at the first of its messages that names anything, and again when the registry tells of
a change: whoever looks for the longest known beginning of a name must know all of them. Other devices have few names,
which come with them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chassis import parking
from chassis.metrics import Gauge
from wire.gateways import NamesTold

MAX_NAMES = 200_000  # of all gateways together, one more for each; about 250 bytes each
CACHED = Gauge("headwater_ingest_names_cached", "External names in the cache", multiprocess_mode="livesum")

Ask = Callable[[str, str, Any], Any]


class NameBook:
    """The names of each gateway that used some lately. Thread-safe; `renew` is called by one thread."""

    def __init__(self, ask: Ask, revision: Callable[[], int]) -> None:
        """`ask` asks the registry; `revision`: the newest change heard of."""
        self._ask = ask
        self._revision = revision
        self._lock = threading.Lock()  # guards the two below
        self._books: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._count = 0

    def of(self, gateway: str) -> Mapping[str, str]:
        """Give the ids of devices by the names that a gateway may call them.

        Raises:
            PeerUnavailable: they are not cached and the registry is away.
        """
        with self._lock:
            book = self._books.get(gateway)
            if book is not None:
                self._books.move_to_end(gateway)
                return book
        return parking.aside(self._read, gateway)

    def learn(self, gateway: str, book: Mapping[str, str], named: Mapping[str, str]) -> None:
        """Add names that the registry gave just now, unless the book has been read anew since."""
        with self._lock:
            if self._books.get(gateway) is book:
                self._count += len(named.keys() - book.keys())
                self._books[gateway].update(named)  # whoever reads it meanwhile sees either
        self._bound()

    def renew(self, gateways: Iterable[str]) -> None:
        """Read the books of these anew, where they are cached. Raises PeerUnavailable: the old ones stay."""
        with self._lock:
            cached = [gateway for gateway in gateways if gateway in self._books]
        for gateway in cached:
            self._read(gateway)

    def forget(self) -> None:
        """Forget all."""
        with self._lock:
            self._books.clear()
            self._count = 0
        CACHED.set(0)

    def _read(self, gateway: str) -> dict[str, str]:
        book: dict[str, str] = {}
        after: str | None = ""
        revision: int | None = None
        while after is not None:
            asked = {"device": gateway, "after": after}
            told = NamesTold.model_validate(self._ask("POST", "/internal/names:list", asked))
            book |= told.names
            after, revision = told.next, told.revision if revision is None else revision
        with self._lock:
            if revision is not None and revision >= self._revision():  # else it may lack what was told since
                self._count += len(book) - (len(self._books[gateway]) if gateway in self._books else -1)
                self._books[gateway] = book
        self._bound()
        return book

    def _bound(self) -> None:
        with self._lock:
            while self._count > MAX_NAMES and len(self._books) > 1:
                self._count -= 1 + len(self._books.popitem(last=False)[1])
            CACHED.set(self._count)
