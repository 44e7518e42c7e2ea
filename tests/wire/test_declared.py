"""Protocols of packages: found beside those of the list, and refused clearly where they cannot be."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.wire import offers
from wire.declared import GROUP, join
from wire.protocols import BUILT_IN


def entry(attribute: str, name: str = "own", module: str = "tests.wire.offers") -> EntryPoint:
    return EntryPoint(name, f"{module}:{attribute}", GROUP)


def test_protocols_of_packages_stand_behind_the_lists() -> None:
    declared, refused = join(BUILT_IN, [entry("PAIR", "b"), entry("GOOD", "a")])

    assert [*declared.values()] == [*BUILT_IN, offers.GOOD, *offers.PAIR]
    assert refused == {}


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("NAME_TAKEN", "ValueError: json: a protocol has this name already"),
        ("SERVICE_TAKEN", "the service 'sparkplug' belongs to another protocol"),
        ("MEDIA_TAKEN", "'application/cbor' is the media type of another protocol"),
        ("SAME_MEDIA", "'text/x' is the media type of another protocol"),
        ("TWICE", "declares a name twice"),
        ("BAD_NAME", "name is not"),
        ("BAD_SERVICE", "service is not"),
        ("BAD_DECODER", "decoder is not"),
        ("BAD_MEDIA", "is no media type"),
        ("BAD_STATE", "is no end of a topic"),
        ("OURS", "does not begin with a level of its own"),
        ("ANY", "does not begin with a level of its own"),
        ("NO_FILTER", "can only be the last level"),
        ("DOORS", "are for built-in protocols"),
        ("ORDERED", "are for built-in protocols"),
        ("NOTHING", "TypeError: it is neither"),
        ("EMPTY", "TypeError: it is neither"),
        ("MISSING", "AttributeError"),
    ],
)
def test_what_cannot_be_is_refused_alone(attribute: str, said: str) -> None:
    declared, refused = join(BUILT_IN, [entry(attribute), entry("GOOD", "z")])

    [(name, reason)] = refused.items()
    assert name == f"own = tests.wire.offers:{attribute}"
    assert said in reason
    assert list(declared)[len(BUILT_IN) :] == ["weather"]


def test_of_two_with_one_name_the_first_is_taken() -> None:
    declared, refused = join(BUILT_IN, [entry("OTHER", "b"), entry("GOOD", "a")])

    assert declared["weather"] == offers.GOOD
    assert "a protocol has this name already" in refused["b = tests.wire.offers:OTHER"]


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import no_such_module", "1 / 0", "syntax error"])
def test_package_that_breaks_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    name = f"broken_{len(code)}"
    (tmp_path / f"{name}.py").write_text(f"{code}\n")
    monkeypatch.syspath_prepend(tmp_path)

    declared, refused = join(BUILT_IN, [entry("PROTOCOL", module=name), entry("GOOD", "z")])

    assert "weather" in declared
    assert list(refused) == [f"own = {name}:PROTOCOL"]
