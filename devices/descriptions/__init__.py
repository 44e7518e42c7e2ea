"""What devices told of their fields: kept, and given to who shows or proposes something."""
