"""Processes of tests that end with the test run, however that ends: a killed pytest, too, leaves nothing behind."""

from __future__ import annotations


def tied(*command: str) -> list[str]:
    """Make a command whose process is sent SIGTERM when the thread that starts it is gone (prctl(2), PDEATHSIG)."""
    return ["setpriv", "--pdeathsig", "TERM", *command]
