"""ThingsBoard's device API over HTTP: `POST /api/v1/{token}/telemetry`."""
