"""Devices of the Homie convention, on their own topics."""
