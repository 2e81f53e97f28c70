"""Results held against dcnum's: the same pipeline identifier means the same data."""
