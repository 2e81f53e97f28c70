"""The processing of measurements while they are recorded."""
