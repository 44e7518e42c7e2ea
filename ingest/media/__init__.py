"""Camera snapshots and other blobs: kept by their content, found by device and time."""
