"""What ESPHome publishes, on its own topics."""
