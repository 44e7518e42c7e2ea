"""What the platform's other services ask the registry."""
