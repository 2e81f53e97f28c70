"""dcnumd processes deformability-cytometry measurements beside the instrument."""

__version__ = "0.2.0"
