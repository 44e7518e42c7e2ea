"""What a device may throw away."""

from __future__ import annotations

from wire.acks import Acks, BootAcks


def test_numbers_between_first_and_newest_are_covered_but_for_gaps() -> None:
    boot = BootAcks(boot_id="b", first=3, seq=5, newest=20, missing=[(6, 7), (11, 11)])

    assert [number for number in range(25) if boot.covers(number)] == [3, 4, 5, 8, 9, 10, *range(12, 21)]
    assert [number for number in range(25) if boot.misses(number)] == [6, 7, 11]


def test_members_of_a_later_version_are_passed_over() -> None:
    acks = Acks.model_validate_json(
        '{"boot_id":"b","first":1,"seq":2,"newest":2,"more":1,"time":"2026-01-02T03:04:05Z",'
        '"earlier":[{"boot_id":"a","first":1,"seq":9,"newest":9,"x":0}]}'
    )

    assert acks.covers(2)
    assert acks.earlier[0].covers(9)
