"""The query language that says which devices are meant, the same wherever devices are chosen (docs/query.md)."""
