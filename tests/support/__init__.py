"""Helpers that several test modules share: daemons, faults, frames, pages, and dcnum as the oracle."""
