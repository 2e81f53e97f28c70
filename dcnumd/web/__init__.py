"""The live page: shows what the daemon does, to browsers and to programs."""
