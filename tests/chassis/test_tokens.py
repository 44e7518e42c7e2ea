from __future__ import annotations

from typing import Any

import pytest

from chassis import tokens
from wire.errors import NotFound, PeerUnavailable


class Registry:
    def __init__(self) -> None:
        self.known = {tokens.hash_token("good"): {"id": "1", "name": "n", "role": "viewer"}}
        self.is_away = False
        self.calls = 0

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        self.calls += 1
        if self.is_away:
            raise PeerUnavailable("away")
        if body["sha256"] not in self.known:
            raise NotFound("no such token")
        return self.known[body["sha256"]]


def test_known_tokens_are_cached_for_a_moment() -> None:
    registry = Registry()
    checker = tokens.PeerTokens(registry)

    found = [checker.check("good") for _ in range(5)]

    assert [principal and principal.role for principal in found] == ["viewer"] * 5
    assert registry.calls == 1
    assert checker.check("bad") is None


def test_known_tokens_outlive_the_registry_unknown_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    checker = tokens.PeerTokens(registry)
    checker.check("good")
    monkeypatch.setattr(tokens, "FRESH_S", 0.0)
    registry.is_away = True

    assert checker.check("good") is not None
    with pytest.raises(PeerUnavailable):
        checker.check("other")


def test_secrets_hold_no_dot_and_compare_whole() -> None:
    assert all("." not in tokens.new_token() for _ in range(100))
    assert tokens.is_same("a", "a")
    assert not tokens.is_same("", "")
    assert not tokens.is_same("a\ud800", "a")
