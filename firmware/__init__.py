"""Firmware rollouts. Its place is kept; the service is not built yet."""
