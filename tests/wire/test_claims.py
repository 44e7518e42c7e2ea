"""What may be claimed, and what is heard of it."""

from __future__ import annotations

import pytest

from wire.claims import FAMILIES, Claim, check_filter, heard, reached, stands_alone, told


@pytest.mark.parametrize(
    "text",
    [
        "#", "+/kitchen/#", "devices/d1/telemetry", "headwater/feed", "$SYS/#", "$share/x/y", "tele/#/x",
        " tele/x", "tele/x ", "tele/\tx", "tele/\x85", "tele/\ufffe", "tele/\U0001ffff", "a/" * 32 + "b", "é" * 129,
        "eq tele/x", "tele/${username}/#",
    ],
)  # fmt: skip
def test_filter_that_no_broker_could_keep_apart_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"claim|filter"):
        check_filter(text)


@pytest.mark.parametrize(
    "text", ["spBv1.0/Plant A/#", "/kitchen", "tele", "tele/+/SENSOR", "tele/%u/x", "Fühler/größe", "devices2/x"]
)
def test_odd_names_of_levels_are_no_obstacle(text: str) -> None:
    assert check_filter(text) == text


def test_usual_topics_are_heard_by_one_subscription_and_others_by_their_own() -> None:
    claims = [
        Claim("tele/kitchen/#", "tasmota", "kitchen"),
        Claim("tele/attic/SENSOR", "tasmota", "attic"),
        Claim("home/attic/tele/#", "tasmota", "attic"),
        Claim("cmnd/attic/#", "tasmota", "attic"),
    ]

    assert heard(claims) == ["home/attic/tele/#", "tele/#"]
    assert reached(claims) == ["cmnd/#", "home/attic/tele/#", "tele/#"]
    assert [stands_alone(claim) for claim in claims] == [False, False, True, False]


def test_what_another_subscription_covers_is_not_heard_twice() -> None:
    claims = [Claim("tele/kitchen/#", "tasmota", "kitchen"), Claim("tele/odd/#", "of-later", "odd")]

    assert heard(claims) == ["tele/#"]


def test_families_have_topics_that_can_be_claimed() -> None:
    filters = [name for family in FAMILIES.values() for name in family.up + family.down]

    assert [check_filter(name) for name in filters] == filters


@pytest.mark.parametrize(
    ("claimed", "filters"),
    [
        (["spBv1.0/p/+/n/#"], ["spBv1.0/STATE/+"]),
        (["spBv1.0/p/#", "tele/x/#"], ["spBv1.0/STATE/+"]),
        (["spBv1.0/#"], []),  # its own already
        (["tele/x/#"], []),
        ([], []),
    ],
)
def test_sparkplug_devices_hear_of_host_applications(claimed: list[str], filters: list[str]) -> None:
    assert told(claimed) == filters
