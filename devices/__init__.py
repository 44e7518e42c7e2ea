"""The registry: devices, types, credentials, operators, presence, audit."""
