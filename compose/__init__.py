"""Composition root: the supervisor, the generated configurations and the `headwater` command."""
