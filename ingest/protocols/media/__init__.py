"""Pictures and other blobs: what is stored of them as a point."""
