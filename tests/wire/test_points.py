from __future__ import annotations

import json

from wire import points
from wire.points import Point, PointModel


def test_point_json_keeps_types_apart() -> None:
    point = Point("d1", "telemetry", 1_700_000_000_000_000_001, {"f": 1.0, "i": 2**64 - 1, "b": True, "s": "x"})

    model = PointModel.model_validate_json(json.dumps(points.point_to_json(point)))

    assert model.time == point.time_ns
    assert [type(value) for value in model.fields.values()] == [float, int, bool, str]
    assert model.fields == point.fields
    assert '"time":"2023-11-14T22:13:20.000000001Z"' in model.model_dump_json()
