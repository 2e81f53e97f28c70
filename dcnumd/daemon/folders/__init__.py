"""Folders: what is in them, what changes there, and whether they are mounted and can take results."""
