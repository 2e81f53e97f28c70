"""The live page: what the daemon does, for browsers and for programs."""
