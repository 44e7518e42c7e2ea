"""Commands: what a device is told to do, once, and what became of it."""
