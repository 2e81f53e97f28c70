"""The ledger: rows for measurements, their transitions between states, and queries."""
