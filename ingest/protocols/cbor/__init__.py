"""CBOR (RFC 8949), as `POST /v1/telemetry` and `devices/{id}/telemetry/cbor` take it."""
