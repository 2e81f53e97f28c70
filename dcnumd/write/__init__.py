"""Writing .rtdc results."""
