"""Twins: what a device is wanted to be, and what it says it is."""
