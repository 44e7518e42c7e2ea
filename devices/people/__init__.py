"""People and programs: who may log in, API tokens."""
