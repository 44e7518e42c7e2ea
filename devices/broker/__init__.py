"""The broker's list of who may connect, kept as the registry says."""
