"""Topics outside the platform's own branch that belong to single devices."""
