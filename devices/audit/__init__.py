"""Who changed what: a chain of entries."""
