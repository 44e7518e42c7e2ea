"""Tenants: owners of devices, people and data."""
