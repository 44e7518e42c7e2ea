"""What was accepted and is not stored yet: a segment log per worker, group commit, and who reads it."""
