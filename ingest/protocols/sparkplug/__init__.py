"""Sparkplug B 3.0: payloads of edge nodes and their devices, and the sessions they are part of."""
