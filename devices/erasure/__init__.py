"""Deleting devices, with their data where that is asked for."""
