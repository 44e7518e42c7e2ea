"""Which devices are there, from what the broker and their data say."""
