"""The ledger: a row for each measurement, its transitions between states, and queries."""
