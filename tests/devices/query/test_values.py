from __future__ import annotations

import pytest

from devices.query.values import fw_of


@pytest.mark.parametrize(
    ("reported", "attribute", "expected"),
    [
        ({"fw": "1.2"}, "1.1", "1.2"),
        ({"fw": 3}, None, 3),
        ({"firmware": {"version": "2.0", "url": "x"}}, None, "2.0"),
        ({"firmware": "2.1"}, None, "2.1"),
        ({"fw": "1.0", "firmware": {"version": "2.0"}}, None, "1.0"),
        ({}, "1.1", "1.1"),
        ({}, None, None),
        ({"fw": None, "firmware": {"version": {}}}, "1.1", "1.1"),
        ({"fw": True, "firmware": []}, None, None),
        ({"fw": "x" * 257}, "1.1", "1.1"),
        ({"fw": "1\0"}, None, None),
        ({"fw": ""}, None, None),
    ],
)
def test_version_is_what_the_device_reports_else_its_attribute(reported, attribute, expected) -> None:
    assert fw_of(reported, attribute) == expected
