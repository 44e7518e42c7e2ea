"""The embedded engine: SQLite files in one folder, `catalog.db` and one wide file per UTC day."""
