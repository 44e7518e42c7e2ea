from __future__ import annotations

import msgspec

from ingest.readings import Reading
from wire import points


def test_only_live_readings_move_the_latest_value() -> None:
    def moves(flags: int) -> bool:
        return Reading("d1", "telemetry", 1, 1, {"a": 1.0}, flags=flags).moves_latest

    assert moves(0)
    assert moves(points.UNCERTAIN | points.SERVER_TIME | points.REDELIVERED)
    assert not any(moves(flag) for flag in (points.RETAINED, points.HISTORICAL, points.SIMULATED, points.FUTURE))


def test_reading_comes_back_with_its_exact_types() -> None:
    fields = {"f": 1.0, "i": 2**64 - 1, "b": True, "s": "x"}
    reading = Reading("d1", "telemetry", 1, 2, fields, boot_id="b", seq=3)

    back = msgspec.msgpack.decode(msgspec.msgpack.encode(reading), type=Reading)

    assert back == reading
    assert [type(value) for value in back.fields.values()] == [float, int, bool, str]
