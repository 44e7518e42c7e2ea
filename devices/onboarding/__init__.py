"""Many devices at once."""
