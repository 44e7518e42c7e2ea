"""The registry's database: connection, tables, schema."""
