"""Groups of devices: listed members, or whatever a query finds."""
