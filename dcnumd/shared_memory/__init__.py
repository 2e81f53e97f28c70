"""Memory that is shared by processes, and slots for frames in it."""
