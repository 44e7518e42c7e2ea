"""From a message to the store: bridge, ingestion services by protocol, spool, quarantine, writer."""
