"""The way of a measurement: from a file that was found to its result and report."""
