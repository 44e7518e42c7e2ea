"""The same deed for all devices that a query finds, as a job with progress."""
