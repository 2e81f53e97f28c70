"""Functions that numba compiles, and the cache of their compiled code."""
