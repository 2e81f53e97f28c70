"""Simulated measurements, written as an instrument writes them."""
