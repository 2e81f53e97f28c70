"""Pipeline identifiers: what was computed, in one line of text."""
