"""Zigbee2MQTT's states and availability, on its own topics."""
