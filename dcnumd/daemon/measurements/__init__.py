"""Processing of measurements, from a file that was found to its result and report."""
