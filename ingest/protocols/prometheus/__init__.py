"""Prometheus' remote write 1.0, and the path that its agents post to."""
