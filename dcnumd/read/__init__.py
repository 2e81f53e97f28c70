"""Reading .rtdc measurements."""
