"""Devices that prove themselves by certificate: authorities, certificates, revocation."""
