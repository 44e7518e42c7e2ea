"""Schema steps of the registry: numbered, forward only, never changed once released."""
