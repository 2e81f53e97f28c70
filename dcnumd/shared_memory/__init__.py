"""Memory that processes share, and the slots in it that hold frames."""
