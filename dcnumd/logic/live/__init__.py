"""Processing of a recording while it grows: its events wait in a spool for the job that makes the result."""
