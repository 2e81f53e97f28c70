"""Features: labelled frames in, a table of events out."""
