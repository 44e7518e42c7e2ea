"""From the spool to the store: one process that drains, drops duplicates and tells the feed."""
