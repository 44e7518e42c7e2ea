"""From the broker to the ingestion services: one process that acknowledges only what was durably accepted."""
