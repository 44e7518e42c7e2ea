"""The cached names of gateways: read whole, read anew after changes, bounded."""

from __future__ import annotations

from typing import Any

import pytest

from ingest import names
from ingest.names import NameBook
from wire.errors import PeerUnavailable


class Registry:
    """Tells names in pages of two; `revision` is that of its answers."""

    def __init__(self) -> None:
        self.names = {"tb:a": "a", "tb:b": "b", "tb:c": "c"}
        self.revision = 5
        self.asked = 0
        self.is_away = False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        if self.is_away:
            raise PeerUnavailable("away")
        self.asked += 1
        page = [name for name in sorted(self.names) if name > body["after"]][:2]
        more = page[-1] if len(page) == 2 else None
        return {"names": {name: self.names[name] for name in page}, "revision": self.revision, "next": more}


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_all_pages_are_read_once(registry) -> None:
    book = NameBook(registry.ask, lambda: 5)

    assert book.of("g1") == book.of("g1") == registry.names
    assert registry.asked == 2


def test_answer_older_than_a_change_that_was_heard_of_is_not_kept(registry) -> None:
    book = NameBook(registry.ask, lambda: 6)

    assert book.of("g1") == registry.names
    registry.names, registry.revision = {"tb:d": "d"}, 6
    assert book.of("g1") == {"tb:d": "d"}


def test_changed_gateway_is_read_anew_and_others_are_not(registry) -> None:
    book = NameBook(registry.ask, lambda: 5)
    book.of("g1")
    registry.names, registry.asked = {"tb:d": "d"}, 0

    book.renew(["g2", "g1", "d1"])

    assert (book.of("g1"), registry.asked) == ({"tb:d": "d"}, 1)


def test_old_names_stay_while_the_registry_is_away(registry) -> None:
    book = NameBook(registry.ask, lambda: 5)
    known = book.of("g1")
    registry.is_away = True

    with pytest.raises(PeerUnavailable):
        book.renew(["g1"])
    with pytest.raises(PeerUnavailable):
        book.of("g2")
    assert book.of("g1") == known


def test_what_was_admitted_is_known_unless_the_book_was_read_anew_since(registry) -> None:
    book = NameBook(registry.ask, lambda: 5)
    before = book.of("g1")
    book.learn("g1", before, {"tb:n": "n"})
    assert book.of("g1")["tb:n"] == "n"

    book.renew(["g1"])
    book.learn("g1", before, {"tb:old": "old"})
    assert "tb:old" not in book.of("g1")


def test_names_are_bounded_and_the_longest_unused_go(registry, monkeypatch) -> None:
    monkeypatch.setattr(names, "MAX_NAMES", 8)
    book = NameBook(registry.ask, lambda: 5)
    for gateway in ("g1", "g2", "g1", "g3"):
        book.of(gateway)
    registry.asked = 0

    book.of("g1"), book.of("g3")
    assert registry.asked == 0
    book.of("g2")
    assert registry.asked == 2
