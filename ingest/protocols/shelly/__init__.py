"""Shelly's notifications (Gen2 and later), on its own topics."""
