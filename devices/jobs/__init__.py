"""Long work with progress: one table, one thread, any number of kinds."""
