"""What `Tokens.check` remembers: nothing that this process took back, nothing for long, nothing that is over."""

from __future__ import annotations

import pytest

from devices.people import service
from devices.people.service import Tokens
from wire import clock
from wire.devices import Principal


class Rows:
    """One session, which can be ended here or by another process, and how often it was asked for."""

    def __init__(self) -> None:
        self.principal: Principal | None = Principal(id="operator:o", name="o", role="viewer")
        self.writes, self.asked = 0, 0

    def principal_of(self, sha256: str, now_ns: int, tenant: str | None = None) -> Principal | None:
        self.asked += 1
        return self.principal

    def end(self, *, is_here: bool) -> None:
        self.principal, self.writes = None, self.writes + is_here


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def tokens(rows) -> Tokens:
    made = Tokens(rows)
    assert made.check("secret") == rows.principal
    return made


def test_known_token_is_not_looked_up_again(tokens, rows, monkeypatch) -> None:
    monkeypatch.setattr(service, "FRESH_S", 3600)

    assert tokens.check("secret") == rows.principal
    assert rows.asked == 1


def test_token_taken_back_here_ends_at_once(tokens, rows, monkeypatch) -> None:
    monkeypatch.setattr(service, "FRESH_S", 3600)
    rows.end(is_here=True)

    assert tokens.check("secret") is None


def test_token_taken_back_by_another_process_ends_when_it_is_no_longer_fresh(tokens, rows, monkeypatch) -> None:
    rows.end(is_here=False)
    monkeypatch.setattr(service, "FRESH_S", 0)

    assert tokens.check("secret") is None


def test_token_is_not_remembered_past_its_end(rows, monkeypatch) -> None:
    monkeypatch.setattr(service, "FRESH_S", 3600)
    rows.principal = rows.principal.model_copy(update={"expires": clock.now_ns() - 1})
    tokens = Tokens(rows)
    tokens.check("secret")
    rows.end(is_here=False)

    assert tokens.check("secret") is None


def test_same_token_in_another_tenant_and_other_services_are_always_asked_for(tokens, rows) -> None:
    tokens.check("secret@elsewhere")
    tokens.verify("hash")

    assert rows.asked == 3


def test_a_change_during_the_look_up_is_not_missed(rows, monkeypatch) -> None:
    monkeypatch.setattr(service, "FRESH_S", 3600)
    tokens, first = Tokens(rows), rows.principal

    def looked_up(*_: object) -> Principal | None:
        rows.writes += 1
        return first

    monkeypatch.setattr(rows, "principal_of", looked_up)
    tokens.check("secret")
    monkeypatch.undo()
    monkeypatch.setattr(service, "FRESH_S", 3600)
    rows.principal = None

    assert tokens.check("secret") is None
