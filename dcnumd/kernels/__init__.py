"""Functions that numba compiles, and where the compiled code is kept."""
