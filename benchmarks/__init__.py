"""dcnumd beside dcnum, on the same simulated measurement: ``python -m benchmarks``."""
