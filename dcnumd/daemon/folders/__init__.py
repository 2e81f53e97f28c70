"""Folders: listing, file events, and whether they are mounted and can accept results."""
