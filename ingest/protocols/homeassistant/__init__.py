"""What Home Assistant discovery tells of fields, on its own topics."""
