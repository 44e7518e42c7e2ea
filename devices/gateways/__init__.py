"""Gateways and the devices that are seen through them."""
