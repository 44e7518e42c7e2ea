from __future__ import annotations

import json

from wire import points
from wire.points import Point, PointModel, Reading


def test_point_json_keeps_types_apart() -> None:
    point = Point("d1", "telemetry", 1_700_000_000_000_000_001, {"f": 1.0, "i": 2**64 - 1, "b": True, "s": "x"})

    model = PointModel.model_validate_json(json.dumps(points.point_to_json(point)))

    assert model.time == point.time_ns
    assert [type(value) for value in model.fields.values()] == [float, int, bool, str]
    assert model.fields == point.fields
    assert '"time":"2023-11-14T22:13:20.000000001Z"' in model.model_dump_json()


def test_only_live_readings_move_the_latest_value() -> None:
    def moves(flags: int) -> bool:
        return Reading("d1", "telemetry", 1, 1, {"a": 1.0}, flags=flags).to_point().moves_latest

    assert moves(0)
    assert moves(points.UNCERTAIN | points.SERVER_TIME | points.REDELIVERED)
    assert not any(moves(flag) for flag in (points.RETAINED, points.HISTORICAL, points.SIMULATED, points.FUTURE))
