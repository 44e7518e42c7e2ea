"""OwnTracks' messages."""

from __future__ import annotations

from typing import Any

import orjson


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give the values as members of a location."""
    return orjson.dumps(values | {"_type": "location", "tst": ms // 1_000}), "owntracks/jane/phone"
