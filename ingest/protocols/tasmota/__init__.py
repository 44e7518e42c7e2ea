"""Tasmota's telemetry, on its own topics."""
