"""Plain JSON and NDJSON, as devices send it to `/v1/telemetry` and `devices/{id}/telemetry`."""
