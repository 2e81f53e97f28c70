"""What to do with a measurement (job) and how it is done (slots, pipeline)."""
