"""OpenTelemetry's protocol for metrics (OTLP), and the path its exporters post to."""
