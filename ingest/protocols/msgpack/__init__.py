"""MessagePack, as `POST /v1/telemetry` and `devices/{id}/telemetry/msgpack` take it."""
