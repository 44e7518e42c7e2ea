"""New secrets for many devices at once, beside the old ones until each has switched."""
