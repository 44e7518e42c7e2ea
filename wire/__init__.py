"""What crosses a process boundary: points, topics, models, errors, clock. Standard library and pydantic only."""
