"""Devices that register themselves: by token, by group key, by certificate; and those that wait to be accepted."""
