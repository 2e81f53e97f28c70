"""Processes: children that answer calls, and pools of workers that stay for all files."""
