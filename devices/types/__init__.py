"""Device types: what the readings of a kind of device look like."""
